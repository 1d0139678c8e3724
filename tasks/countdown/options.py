"""Flags of Countdown: problems, prompt and scoring; and the problems that they name."""

from dataclasses import dataclass, fields

from datasets import Dataset

from common.errors import UserError
from common.flags import ANY_WEIGHT, check_choices, flag
from tasks.countdown.approaches import MOST_NUMBERS
from tasks.countdown.problems import ProblemSpace, add_prompts, generate, load_countdown, of_split, with_parts
from tasks.validation_split import draw

EVAL_SPLITS = ("validation", "test")


@dataclass
class CountdownOptions:
    """Problems, prompt and scoring of Countdown."""

    data: str = flag("generate", "generate, or a hub name, folder, jsonl or parquet file.")
    train_problems: int = flag(4000, "Most training problems.")
    min_numbers: int = flag(3, "Fewest given numbers, 2 to 6.")
    max_numbers: int = flag(4, "Most given numbers, 2 to 6.")
    max_number: int = flag(99, "Largest given number.")
    min_target: int = flag(10, "Smallest target.")
    max_target: int = flag(99, "Largest target.")
    max_value: int = flag(9999, "Largest intermediate value of the generated solution.")
    min_approaches: int = flag(
        1,
        "Least different right approaches (normal forms of expressions without signs) of a generated problem; above 1 "
        f"for at most {MOST_NUMBERS} numbers, which take 50 ms a problem.",
    )
    prompt_style: str = flag("chat", "chat (instruct models) or base (transcript).")
    format_weight: float = flag(0.0, "Weight of the format reward; 0 only logs it." + ANY_WEIGHT)
    countdown_strict_line: bool = flag(
        False, "Reward like the reference: last line only, 0.1 for any other answer tag."
    )
    eval_split: str = flag(
        "validation",
        "Problems of evaluations: validation, or test where nothing is left to choose, and no best/ is kept.",
    )

    def __post_init__(self):
        check_choices(self, eval_split=EVAL_SPLITS)


def load_problems(options: CountdownOptions, eval_problems: int, seed: int) -> tuple[Dataset, Dataset]:
    """(training, held-out) problems with columns prompt, numbers, target, of splits that share no problem.

    The held-out problems are the same whatever the seed.
    """
    if options.data == "generate":
        space = ProblemSpace(**{item.name: getattr(options, item.name) for item in fields(ProblemSpace)})
        train = generate(options.train_problems, "train", seed, space)
        held_out = generate(eval_problems, options.eval_split, 0, space)
    else:
        if options.min_approaches > 1:
            raise UserError(
                f"--min_approaches={options.min_approaches} chooses among generated problems; leave it out beside "
                f"--data={options.data!r}."
            )
        problems = load_countdown(options.data)
        train, held_out = of_split(problems, "train"), of_split(problems, options.eval_split)
        if not len(train) or not len(held_out):
            raise UserError(
                f"--data={options.data!r} has {len(train)} training and {len(held_out)} {options.eval_split} problems "
                "(80 and 10 of 100, by a hash of the problem); give a larger file."
            )
        train = draw(train, options.train_problems, seed)
        held_out = draw(held_out, eval_problems, seed=0)
    return add_prompts(train, options.prompt_style), add_prompts(with_parts(held_out), options.prompt_style)
