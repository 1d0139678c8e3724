"""Flags of Countdown: problems, prompt and scoring; and the problems that they name."""

from dataclasses import dataclass

from datasets import Dataset

from common.errors import UserError
from common.flags import flag
from tasks.countdown.problems import ProblemSpace, add_prompts, generate, load_countdown, of_split


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
    prompt_style: str = flag("chat", "chat (instruct models) or base (transcript).")
    format_weight: float = flag(0.0, "Weight of the format reward; 0 only logs it.")
    countdown_strict_line: bool = flag(
        False, "Reward like the reference: last line only, 0.1 for any other answer tag."
    )
    warm_start: bool = flag(False, "First train the embedded policy anew, in the project.")


def load_problems(options: CountdownOptions, eval_problems: int, seed: int) -> tuple[Dataset, Dataset]:
    """(training, validation) problems with columns prompt, numbers, target, of splits that share no problem.

    The validation problems are the same whatever the seed. Those of the test split are left to run_eval.py.
    """
    if options.data == "generate":
        names = ("min_numbers", "max_numbers", "max_number", "min_target", "max_target", "max_value")
        space = ProblemSpace(**{name: getattr(options, name) for name in names})
        train = generate(options.train_problems, "train", seed, space)
        validation = generate(eval_problems, "validation", 0, space)
    else:
        problems = load_countdown(options.data)
        train, validation = of_split(problems, "train"), of_split(problems, "validation")
        if not len(train) or not len(validation):
            raise UserError(
                f"--data={options.data!r} has {len(train)} training and {len(validation)} validation problems (80 and "
                "10 of 100, by a hash of the problem); give a larger file."
            )
        train = train.shuffle(seed=seed).select(range(min(options.train_problems, len(train))))
        validation = validation.shuffle(seed=0).select(range(min(eval_problems, len(validation))))
    return add_prompts(train, options.prompt_style), add_prompts(validation, options.prompt_style)
