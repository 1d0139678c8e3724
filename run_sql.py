"""Train a policy to write SQL that gives the right rows, with GRPO and a bonus: flags -> data -> trainer -> train.

python run_sql.py --data=spider --model_name=Qwen/Qwen2.5-Coder-1.5B-Instruct --use_ir=cfn --seed 0
"""

from cli.help import answer_help
from common.threads import choose_threads

answer_help("run_sql.py")  # before anything large is imported
choose_threads()  # before torch is imported

from functools import partial

from analysis.report import write_report
from cli.dry_run import dry_run
from cli.parse import parse_options
from common.errors import run_cli
from policy.load import load_tokenizer
from rewards.graders import GRADERS
from rewards.sql.grader import sql_rewards
from tasks.sql.options import SQL_R1, SqlOptions, example_database, load_problems
from tasks.sql.prompts import worked_example
from training.own_rewards import with_own_rewards
from training.problems import check_batch, fitting_rows
from training.run import Run
from training.self_check import Scoring, check_scoring


def scoring(task: SqlOptions) -> Scoring:
    """The run's rewards."""
    is_r1 = task.reward == SQL_R1
    columns = sql_rewards(continues=task.prompt_type == "plain", sql_r1=is_r1)
    weights = [0.0, 1.0] if is_r1 else [1.0, task.execute_weight, task.format_weight][: len(columns)]
    example = worked_example(task.prompt_type, example_database())
    return Scoring(columns, weights, *example, f"--prompt_type={task.prompt_type}")


def main() -> None:
    # ---- flags
    flags = task, intrinsic, options, config = parse_options("sql", SqlOptions)
    load = partial(load_problems, task, options.eval_problems, config.do_eval, config.seed)
    scores = with_own_rewards(scoring(task), options.reward_func, options.reward_func_weight)
    if options.dry_run:
        dry_run("sql", flags, load, scores)
        return

    # ---- data
    train_rows, validation_rows = load()
    tokenizer = load_tokenizer(options.model_name, config.chat_template_kwargs)
    train_rows = fitting_rows(train_rows, tokenizer, options, config)
    check_batch(train_rows, config)
    check_scoring(scores, tokenizer, config)

    # ---- run folder, encoder, policy, trainer
    run = Run("sql", task, intrinsic, options, config, train_rows)
    trainer = run.build_trainer(train_rows, scores.columns, scores.weights, tokenizer)

    # ---- evaluate, train, evaluate, save
    run.train(trainer, run.held_out(validation_rows, GRADERS["sql"]), write_report)


if __name__ == "__main__":
    run_cli(main)
