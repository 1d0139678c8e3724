"""Train a policy on multiple choice with GRPO and an intrinsic bonus: flags -> data -> trainer -> train and evaluate.

python run_choice.py --model_name=Qwen/Qwen2.5-1.5B-Instruct --use_ir=sc --seed 0
"""

from cli.help import answer_help
from common.threads import choose_threads

answer_help("run_choice.py")  # before anything large is imported
choose_threads()  # before torch is imported

from functools import partial

from analysis.report import write_report
from cli.dry_run import dry_run
from cli.parse import parse_options
from common.errors import run_cli
from policy.load import load_tokenizer
from rewards.choice import LETTERS, choice_rewards
from rewards.graders import GRADERS
from tasks.choice.options import ChoiceOptions, load_problems
from tasks.choice.prompts import worked_example
from training.own_rewards import with_own_rewards
from training.problems import check_batch, fitting_rows
from training.run import Run
from training.self_check import Scoring, check_scoring


def scoring(task: ChoiceOptions, num_letters: int = len(LETTERS)) -> Scoring:
    """The run's rewards."""
    columns = choice_rewards(num_letters, first_line=task.prompt_type == "plain")
    weights = [1.0, task.format_weight][: len(columns)]
    return Scoring(columns, weights, *worked_example(task.prompt_type), f"--prompt_type={task.prompt_type}")


def main() -> None:
    # ---- flags
    flags = task, intrinsic, options, config = parse_options("choice", ChoiceOptions)
    load = partial(load_problems, task, options.eval_problems, config.do_eval, config.seed)
    if options.dry_run:
        dry_run("choice", flags, load, with_own_rewards(scoring(task), options.reward_func, options.reward_func_weight))
        return

    # ---- data
    train_rows, validation_rows = load()
    tokenizer = load_tokenizer(options.model_name, config.chat_template_kwargs)
    train_rows = fitting_rows(train_rows, tokenizer, options, config)
    check_batch(train_rows, config)
    scores = scoring(task, max(map(len, train_rows["choices"])))
    scores = with_own_rewards(scores, options.reward_func, options.reward_func_weight)
    check_scoring(scores, tokenizer, config)

    # ---- run folder, encoder, policy, trainer
    run = Run("choice", task, intrinsic, options, config, train_rows)
    trainer = run.build_trainer(train_rows, scores.columns, scores.weights, tokenizer)

    # ---- evaluate, train, evaluate, save
    run.train(trainer, run.held_out(validation_rows, GRADERS["choice"]), write_report)


if __name__ == "__main__":
    run_cli(main)
