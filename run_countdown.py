"""Train a policy on Countdown with GRPO and an intrinsic bonus: flags -> data -> trainer -> train and evaluate.

python run_countdown.py --use_ir=knn+ --seed 0
"""

from cli.help import answer_help
from common.threads import choose_threads

answer_help("run_countdown.py")  # before anything large is imported
choose_threads()  # before torch is imported

from functools import partial

from analysis.report import write_report
from cli.dry_run import dry_run
from cli.parse import parse_options
from common.errors import run_cli
from policy.load import load_tokenizer
from rewards.countdown import CountdownReward
from rewards.format import FormatReward
from rewards.graders import GRADERS
from tasks.countdown.options import CountdownOptions, load_problems
from tasks.countdown.problems import worked_example
from training.own_rewards import with_own_rewards
from training.problems import check_batch, fitting_rows
from training.run import Run
from training.self_check import Scoring, check_scoring


def scoring(task: CountdownOptions) -> Scoring:
    """The run's rewards."""
    columns = [CountdownReward(strict_line=task.countdown_strict_line), FormatReward()]
    asked = f"--prompt_style={task.prompt_style}"
    return Scoring(columns, [1.0, task.format_weight], *worked_example(task.prompt_style), asked)


def main() -> None:
    # ---- flags
    flags = task, intrinsic, options, config = parse_options("countdown", CountdownOptions)
    load = partial(load_problems, task, options.eval_problems, config.seed)
    scores = with_own_rewards(scoring(task), options.reward_func, options.reward_func_weight)
    if options.dry_run:
        dry_run("countdown", flags, load, scores)
        return

    # ---- data
    train_rows, held_out_rows = load()
    tokenizer = load_tokenizer(options.model_name, config.chat_template_kwargs)
    train_rows = fitting_rows(train_rows, tokenizer, options, config)
    check_batch(train_rows, config)
    check_scoring(scores, tokenizer, config)

    # ---- run folder, encoder, policy, trainer
    run = Run("countdown", task, intrinsic, options, config, train_rows)
    trainer = run.build_trainer(train_rows, scores.columns, scores.weights, tokenizer)

    # ---- evaluate, train, evaluate, save
    run.train(trainer, run.held_out(held_out_rows, GRADERS["countdown"]), write_report)


if __name__ == "__main__":
    run_cli(main)
