"""Train a policy on Countdown with GRPO and an intrinsic bonus: flags -> data -> trainer -> train and evaluate.

python run_countdown.py --use_ir=knn+ --seed 0
"""

from training.threads import choose_threads

choose_threads()  # before torch is imported

from dataclasses import dataclass, field
from functools import partial

from datasets import Dataset

from evaluation.graders import GRADERS
from rewards.countdown import CountdownReward
from rewards.format import FormatReward
from tasks.countdown import ProblemSpace, add_prompts, generate, of_split, worked_example
from tasks.load import load_countdown
from training.dry_run import dry_run
from training.errors import UserError, run_cli
from training.policy import is_embedded, load_tokenizer
from training.problems import check_batch, fitting_rows
from training.run import Run
from training.run_options import RunOptions, parse_options
from training.self_check import Scoring, check_scoring


@dataclass
class CountdownOptions:
    """Problems, prompt and scoring of Countdown."""

    data: str = field(default="generate", metadata={"help": "generate, or a hub name, folder, jsonl or parquet file."})
    train_problems: int = field(default=4000, metadata={"help": "Most training problems."})
    min_numbers: int = field(default=3, metadata={"help": "Fewest given numbers, 3 to 6."})
    max_numbers: int = field(default=4, metadata={"help": "Most given numbers, 3 to 6."})
    max_number: int = field(default=99, metadata={"help": "Largest given number."})
    min_target: int = field(default=10, metadata={"help": "Smallest target."})
    max_target: int = field(default=99, metadata={"help": "Largest target."})
    max_value: int = field(default=9999, metadata={"help": "Largest intermediate value of the generated solution."})
    prompt_style: str = field(default="chat", metadata={"help": "chat (instruct models) or base (transcript)."})
    format_weight: float = field(default=0.0, metadata={"help": "Weight of the format reward; 0 only logs it."})
    countdown_strict_line: bool = field(
        default=False, metadata={"help": "Reward like the reference: last line only, 0.1 for any other answer tag."}
    )
    warm_start: bool = field(default=False, metadata={"help": "First train the embedded policy anew, in the project."})


def load_problems(options: CountdownOptions, run: RunOptions, seed: int) -> tuple[Dataset, Dataset]:
    """(training, validation) problems with columns prompt, numbers, target, of splits that share no problem.

    The validation problems are the same whatever the seed. Those of the test split are left to run_eval.py.
    """
    if options.data == "generate":
        names = ("min_numbers", "max_numbers", "max_number", "min_target", "max_target", "max_value")
        space = ProblemSpace(**{name: getattr(options, name) for name in names})
        train = generate(options.train_problems, "train", seed, space)
        validation = generate(run.eval_problems, "validation", 0, space)
    else:
        problems = load_countdown(options.data)
        train, validation = of_split(problems, "train"), of_split(problems, "validation")
        if not len(train) or not len(validation):
            raise UserError(
                f"--data={options.data!r} has {len(train)} training and {len(validation)} validation problems (80 and "
                "10 of 100, by a hash of the problem); give a larger file."
            )
        train = train.shuffle(seed=seed).select(range(min(options.train_problems, len(train))))
        validation = validation.shuffle(seed=0).select(range(min(run.eval_problems, len(validation))))
    return add_prompts(train, options.prompt_style), add_prompts(validation, options.prompt_style)


def scoring(task: CountdownOptions) -> Scoring:
    """The run's rewards."""
    columns = [CountdownReward(strict_line=task.countdown_strict_line), FormatReward()]
    asked = f"--prompt_style={task.prompt_style}"
    return Scoring(columns, [1.0, task.format_weight], *worked_example(task.prompt_style), asked)


def main() -> None:
    # ---- flags
    flags = task, intrinsic, options, config = parse_options("countdown", CountdownOptions)
    load = partial(load_problems, task, options, config.seed)
    if task.warm_start and not is_embedded(options.model_name):
        raise UserError(f"--warm_start trains the embedded policy; it does not go with {options.model_name!r}.")
    scores = scoring(task)
    if options.dry_run:
        dry_run("countdown", flags, load, scores)
        return
    if task.warm_start:
        from training.tiny_policy import WarmStart, warm_start

        warm_start(WarmStart())

    # ---- data
    train_rows, validation_rows = load()
    tokenizer = load_tokenizer(options.model_name)
    train_rows = fitting_rows(train_rows, tokenizer, options, config)
    check_batch(train_rows, config)
    check_scoring(scores, tokenizer, config)

    # ---- run folder, encoder, policy, trainer
    run = Run("countdown", task, intrinsic, options, config, train_rows)
    trainer = run.build_trainer(train_rows, scores.columns, scores.weights, tokenizer)

    # ---- evaluate, train, evaluate, save
    run.train(trainer, run.held_out(validation_rows, GRADERS["countdown"]))


if __name__ == "__main__":
    run_cli(main)
