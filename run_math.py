"""Train a policy on mathematics with LaTeX answers, or any (question, answer) file: flags -> data -> trainer -> train.

python run_math.py --model_name=Qwen/Qwen2.5-0.5B-Instruct --use_ir=knn+ --k=20 --seed 0
"""

from training.threads import choose_threads

choose_threads()  # before torch is imported

from functools import partial

from evaluation.graders import GRADERS
from rewards.gsm8k import math_rewards
from tasks.math import load_math
from tasks.math_options import MathIntrinsicOptions, NuminaOptions, load_problems, weights_of
from training.dry_run import dry_run
from training.errors import run_cli
from training.policy import load_tokenizer
from training.problems import check_batch, fitting_rows
from training.run import Run
from training.run_options import parse_options


def main() -> None:
    # ---- flags
    flags = task, intrinsic, options, config = parse_options("math", NuminaOptions, MathIntrinsicOptions)
    load = partial(load_problems, task, options, load_math, config.do_eval, config.seed)
    if options.dry_run:
        dry_run("math", flags, load)
        return

    # ---- data
    train_rows, validation_rows = load()
    tokenizer = load_tokenizer(options.model_name)
    train_rows = fitting_rows(train_rows, tokenizer, options, config)
    check_batch(train_rows, config)

    # ---- run folder, encoder, policy, trainer
    run = Run("math", task, intrinsic, options, config, train_rows)
    grade = GRADERS["latex"]
    rewards = math_rewards(grade, "cosine" in intrinsic.reward_weights, config.L)
    trainer = run.build_trainer(train_rows, rewards, weights_of(rewards, task, intrinsic), tokenizer)

    # ---- evaluate, train, evaluate, save
    run.train(trainer, run.held_out(validation_rows, grade))


if __name__ == "__main__":
    run_cli(main)
