"""Flags and data of run_choice.py."""

from dataclasses import dataclass

from datasets import Dataset, concatenate_datasets

from common.errors import UserError
from common.flags import ANY_WEIGHT, check_least, flag
from tasks.choice.problems import ARC, CHALLENGE, EASY, load_choice, shuffle_choices
from tasks.choice.prompts import add_prompts, check_prompt
from tasks.load import local_path, refuse_test_sets
from tasks.validation_split import draw, first_by_hash, set_aside, without


@dataclass
class ChoiceOptions:
    """Data, prompt and rewards."""

    data: str = flag(
        ARC, "Training data with question, choices and answer: hub name, folder, or jsonl, json or parquet file."
    )
    subset: str = flag(CHALLENGE, "Part of a hub data set, or of a folder of ARC; of one without parts leave it empty.")
    easy: bool = flag(False, "Train on the training questions of ARC-Easy too.")
    split: str = flag("train", "Split of a hub data set or folder to train on; not test.")
    eval_data: str = flag("", "Validation data: hub name, folder or file. Unset: --data.")
    eval_split: str = flag(
        "validation",
        "Split of the validation data, not test. Where the validation data is the file of --data, problems are set "
        "aside from it instead.",
    )
    train_problems: int = flag(0, "Random training problems to use; 0 uses all.")
    prompt_type: str = flag(
        "reasoning", "How is asked: reasoning or think (the letter in tags), plain (the letter behind Answer:)."
    )
    shuffle_choices: bool = flag(
        True, "Shuffle the options of training questions, by the seed and a hash of the question."
    )
    format_weight: float = flag(0.0, "Weight of the reward for the tags alone; plain has none." + ANY_WEIGHT)

    def __post_init__(self):
        check_prompt(self.prompt_type, 0)
        check_least(self, train_problems=0)
        refuse_test_sets(self)
        if self.easy and self.subset != CHALLENGE:
            raise UserError(f"--easy adds ARC-Easy to --subset={CHALLENGE}, not to {self.subset!r}; leave it out.")


def load_problems(
    options: ChoiceOptions, eval_problems: int, validate: bool, seed: int
) -> tuple[Dataset, Dataset | None]:
    """(training, validation) rows with prompts; no validation question is trained on.

    Which questions validate does not depend on the seed, nor does the order of their options. Raises `UserError` when
    no training problem is left.
    """
    train, validation = load_choice(options.data, options.split, options.subset), None
    if options.easy:
        train = concatenate_datasets([train, load_choice(options.data, options.split, EASY)])
    if validate:
        if not options.eval_data and local_path(options.data).is_file():
            validation = set_aside(train, eval_problems)
        else:
            validation = load_choice(options.eval_data or options.data, options.eval_split, options.subset)
            validation = first_by_hash(validation, eval_problems)
        train = without(train, validation["question"])
        validation = add_prompts(validation, options.prompt_type)
    if options.train_problems:
        train = draw(train, options.train_problems, seed)
    if options.shuffle_choices:
        train = shuffle_choices(train, seed)
    return add_prompts(train, options.prompt_type), validation
