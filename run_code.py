"""Train a policy to write Python that passes tests, with GRPO and a bonus: flags -> data -> trainer -> train.

python run_code.py --model_name=Qwen/Qwen2.5-Coder-1.5B-Instruct --use_ir=sc --seed 0
"""

from cli.help import answer_help
from common.threads import choose_threads

answer_help("run_code.py")  # before anything large is imported
choose_threads()  # before torch is imported

from functools import partial

from analysis.report import write_report
from cli.dry_run import dry_run
from cli.parse import parse_options
from common.errors import run_cli
from policy.load import load_tokenizer
from rewards.code import CodeFormatReward, CodeReward, PassedTestsReward
from rewards.graders import GRADERS
from rewards.sandbox.pool import open_sandbox
from tasks.code.options import CodeOptions, load_problems
from tasks.code.prompts import worked_example
from training.own_rewards import with_own_rewards
from training.problems import check_batch, fitting_rows
from training.run import Run
from training.self_check import Scoring, check_scoring


def scoring(task: CodeOptions) -> Scoring:
    """The run's rewards; a function that a plain prompt begins has no fence to pay for."""
    correctness = CodeReward(all_inputs=task.tests_weight > 0)
    columns, weights = [correctness, PassedTestsReward(correctness)], [1.0, task.tests_weight]
    if task.prompt_type != "plain":
        columns, weights = [*columns, CodeFormatReward()], [*weights, task.format_weight]
    return Scoring(columns, weights, *worked_example(task.prompt_type), f"--prompt_type={task.prompt_type}")


def main() -> None:
    # ---- flags
    flags = task, intrinsic, options, config = parse_options("code", CodeOptions)
    load = partial(load_problems, task, options.eval_problems, config.do_eval, config.seed)
    scores = with_own_rewards(scoring(task), options.reward_func, options.reward_func_weight)
    print(open_sandbox(task.sandbox, task.test_seconds, task.sandbox_workers).describe(), flush=True)
    if options.dry_run:
        dry_run("code", flags, load, scores)
        return

    # ---- data
    train_rows, validation_rows = load()
    tokenizer = load_tokenizer(options.model_name, config.chat_template_kwargs)
    train_rows = fitting_rows(train_rows, tokenizer, options, config)
    check_batch(train_rows, config)
    check_scoring(scores, tokenizer, config)

    # ---- run folder, encoder, policy, trainer
    run = Run("code", task, intrinsic, options, config, train_rows)
    trainer = run.build_trainer(train_rows, scores.columns, scores.weights, tokenizer)

    # ---- evaluate, train, evaluate, save
    run.train(trainer, run.held_out(validation_rows, GRADERS["code"]), write_report)


if __name__ == "__main__":
    run_cli(main)
