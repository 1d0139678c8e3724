"""Train a policy on mathematics with LaTeX answers, or any (question, answer) file: flags -> data -> trainer -> train.

python run_math.py --model_name=Qwen/Qwen2.5-0.5B-Instruct --use_ir=knn+ --k=20 --seed 0
"""

from cli.help import answer_help
from common.threads import choose_threads

answer_help("run_math.py")  # before anything large is imported
choose_threads()  # before torch is imported

from functools import partial

from analysis.report import write_report
from cli.dry_run import dry_run
from cli.parse import parse_options
from common.errors import run_cli
from intrinsic.options import MathIntrinsicOptions
from policy.load import load_tokenizer
from rewards.graders import GRADERS
from rewards.gsm8k import math_rewards, weights_of
from tasks.math.options import NuminaOptions, load_problems, worked_example
from tasks.math.problems import load_math
from tasks.math.prompts import place_of
from training.own_rewards import with_own_rewards
from training.problems import check_batch, fitting_rows
from training.run import Run
from training.run_options import RunConfig
from training.self_check import Scoring, check_scoring


def scoring(task: NuminaOptions, intrinsic: MathIntrinsicOptions, config: RunConfig) -> Scoring:
    """The run's rewards, which look for the answer where --prompt_type asks for it."""
    place = place_of(task.prompt_type)
    rewards = math_rewards(GRADERS["latex"], "cosine" in intrinsic.reward_weights, config.L, place)
    row, answer = worked_example(task)
    return Scoring(
        rewards,
        weights_of(rewards, task.format_weight, intrinsic.reward_weights),
        row,
        answer,
        f"--prompt_type={task.prompt_type}",
    )


def main() -> None:
    # ---- flags
    flags = task, intrinsic, options, config = parse_options("math", NuminaOptions, MathIntrinsicOptions)
    load = partial(load_problems, task, options.eval_problems, load_math, config.do_eval, config.seed)
    scores = with_own_rewards(scoring(task, intrinsic, config), options.reward_func, options.reward_func_weight)
    if options.dry_run:
        dry_run("math", flags, load, scores)
        return

    # ---- data
    train_rows, validation_rows = load()
    tokenizer = load_tokenizer(options.model_name, config.chat_template_kwargs)
    train_rows = fitting_rows(train_rows, tokenizer, options, config)
    check_batch(train_rows, config)
    check_scoring(scores, tokenizer, config)

    # ---- run folder, encoder, policy, trainer
    run = Run("math", task, intrinsic, options, config, train_rows)
    trainer = run.build_trainer(train_rows, scores.columns, scores.weights, tokenizer)

    # ---- evaluate, train, evaluate, save
    run.train(trainer, run.held_out(validation_rows, GRADERS["latex"]), write_report)


if __name__ == "__main__":
    run_cli(main)
