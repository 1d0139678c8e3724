"""Flags and data of run_code.py."""

from dataclasses import dataclass

from datasets import Dataset

from common.errors import UserError, check_number
from common.flags import ANY_WEIGHT, check_choices, check_least, flag
from rewards.sandbox.pool import MODES, MOST_SECONDS
from tasks.code.problems import HUMANEVAL, MBPP, load_code
from tasks.code.prompts import add_prompts, check_prompt
from tasks.load import folder_file, refuse_test_sets
from tasks.validation_split import draw, first_by_hash, set_aside, without


@dataclass
class CodeOptions:
    """Data, prompt, rewards and sandbox."""

    data: str = flag(
        MBPP,
        "Training data: hub name, folder or file with MBPP's columns, or prompt, entry_point and test, or prompt "
        "and io (pairs of a program's input and output).",
    )
    split: str = flag("train", "Split of a hub data set or folder to train on; not test.")
    eval_data: str = flag("", "Validation data: hub name, folder or file. Unset: --data.")
    eval_split: str = flag(
        "validation",
        "Split of the validation data, not test. Where --eval_data is unset and --data has no such split, problems are "
        "set aside from training.",
    )
    train_problems: int = flag(0, "Random training problems to use; 0 uses all.")
    show_tests: int = flag(1, "Asserts of MBPP that the prompt shows, 0 or more.")
    prompt_type: str = flag(
        "fenced",
        "How is asked: fenced (one Python block), reasoning or think (the block in tags), plain (the head of the "
        "function, for a policy without chat template).",
    )
    tests_weight: float = flag(
        0.0,
        "Weight of the reward for the share of the asserts, or inputs, that an answer passes; 0 only logs it."
        + ANY_WEIGHT,
    )
    format_weight: float = flag(
        0.0, "Weight of the reward for one Python block at the end; plain has none." + ANY_WEIGHT
    )
    sandbox: str = flag(
        "auto",
        "Isolation of the policy's code: auto (whatever mechanisms hold the tries at the start back), strict (Landlock "
        "6 or later, seccomp and limits, else refuse), process (limits alone: code can read and write your files).",
    )
    test_seconds: int = flag(5, f"Seconds of processor time for an answer and its tests, 1 to {MOST_SECONDS}.")
    sandbox_workers: int = flag(0, "Answers that are run at once; 0: one per core.")

    def __post_init__(self):
        check_prompt(self.prompt_type, 0)
        check_choices(self, sandbox=MODES)
        check_least(self, train_problems=0, show_tests=0, sandbox_workers=0)
        check_number("tests_weight", self.tests_weight, least=0)
        check_number("test_seconds", self.test_seconds, least=1, most=MOST_SECONDS)
        refuse_test_sets(self)
        for name in ("data", "eval_data"):
            if "humaneval" in getattr(self, name).lower().replace("_", "").replace("-", ""):
                _refuse_humaneval(name, getattr(self, name))


def _refuse_humaneval(flag: str, value: str) -> None:
    raise UserError(
        f"--{flag}={value!r}: HumanEval ({HUMANEVAL}) has no training part and is for run_eval.py alone; use MBPP or a "
        "file of your own."
    )


def _load(options: CodeOptions, flag: str, split: str) -> Dataset:
    """The rows that a flag names; HumanEval is known by its ids too."""
    source = getattr(options, flag)
    rows = load_code(source, split, options.show_tests)
    if any(name.startswith("HumanEval/") for name in rows["id"]):
        _refuse_humaneval(flag, source)
    return rows


def load_problems(
    options: CodeOptions, eval_problems: int, validate: bool, seed: int
) -> tuple[Dataset, Dataset | None]:
    """(training, validation) rows with prompts; no validation problem is trained on.

    Which problems validate does not depend on the seed. Raises `UserError` when no training problem is left.
    """
    train, validation = _load(options, "data", options.split), None
    if validate:
        if options.eval_data or options.data == MBPP or folder_file(options.data, options.eval_split):
            flag = "eval_data" if options.eval_data else "data"
            validation = first_by_hash(_load(options, flag, options.eval_split), eval_problems)
        else:
            validation = set_aside(train, eval_problems)
        train = without(train, validation["question"])
        validation = add_prompts(validation, options.prompt_type)
    if options.train_problems:
        train = draw(train, options.train_problems, seed)
    return add_prompts(train, options.prompt_type), validation
