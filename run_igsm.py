"""Train a policy on iGSM: flags -> generated problems -> trainer -> train, evaluated inside and outside its range.

python run_igsm.py --model_name=outputs/sft/Qwen2.5-1.5B_injected_seed0/final --use_ir=no
"""

from cli.help import answer_help
from common.threads import choose_threads

answer_help("run_igsm.py")  # before anything large is imported
choose_threads()  # before torch is imported

from functools import partial

from analysis.report import write_report
from cli.dry_run import dry_run
from cli.parse import parse_options
from common.errors import run_cli
from policy.load import load_tokenizer
from rewards.igsm import igsm_rewards
from tasks.igsm.dataset import worked_example
from tasks.igsm.options import IGSMOptions, load_problems
from tasks.igsm.solution import approach, grade_solution
from training.own_rewards import with_own_rewards
from training.problems import check_batch, fitting_rows
from training.run import Run
from training.self_check import Scoring, check_scoring


def scoring(task: IGSMOptions) -> Scoring:
    """The run's rewards."""
    asked = f"--prompt_style={task.prompt_style}"
    return Scoring(igsm_rewards(approach), [1.0, task.format_weight], *worked_example(task.prompt_style), asked)


def main() -> None:
    # ---- flags
    flags = task, intrinsic, options, config = parse_options("igsm", IGSMOptions)
    load = partial(load_problems, task, options.eval_problems, config.seed)
    scores = with_own_rewards(scoring(task), options.reward_func, options.reward_func_weight)
    if options.dry_run:
        dry_run("igsm", flags, load, scores)
        return

    # ---- data
    train_rows, validation_rows = load()
    tokenizer = load_tokenizer(options.model_name, config.chat_template_kwargs)
    train_rows = fitting_rows(train_rows, tokenizer, options, config)
    check_batch(train_rows, config)
    check_scoring(scores, tokenizer, config)

    # ---- run folder, encoder, policy, trainer
    run = Run("igsm", task, intrinsic, options, config, train_rows)
    trainer = run.build_trainer(train_rows, scores.columns, scores.weights, tokenizer)

    # ---- evaluate, train, evaluate, save
    run.train(trainer, run.held_out(validation_rows, grade_solution), write_report)


if __name__ == "__main__":
    run_cli(main)
