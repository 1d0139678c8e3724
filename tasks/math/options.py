"""Flags and data of the scripts that train on questions with one final answer: run_gsm8k.py and run_math.py."""

from collections.abc import Callable
from dataclasses import dataclass

from datasets import Dataset

from common.errors import UserError
from common.flags import ANY_WEIGHT, check_least, flag
from tasks.load import refuse_test_sets
from tasks.math.problems import GSM8K, NUMINA
from tasks.math.prompts import EXEMPLARS, add_prompts, check_prompt, draw_shots, prompt_columns, solution
from tasks.validation_split import draw, first_by_hash, set_aside, without

LEGACY_PROMPT_TYPES = ("reasoning", "plain")  # with the tags that the reference's regexes look for


@dataclass
class MathOptions:
    """Data, prompt and rewards."""

    data: str = flag(GSM8K, "Training data: hub name, folder, jsonl, parquet, csv or tsv file.")
    split: str = flag("train", "Split of a hub dataset or folder to train on.")
    eval_data: str = flag(
        "",
        "Validation data: hub name, folder or file. Unset: that of --eval_split, or set aside from the training split.",
    )
    eval_split: str = flag(
        "",
        "Split of the validation data, not test: the best policy is chosen on it, and run_eval.py reports test rows. "
        "Unset: validation with --eval_data, else problems set aside from the training split.",
    )
    train_problems: int = flag(0, "Random training problems to use; 0 uses all.")
    num_shots: int = flag(0, "Worked examples before each question, in training and evaluation alike, 0 to 9.")
    prompt_type: str = flag(
        "reasoning",
        "Where the answer is asked for, rewarded and evaluated: reasoning or think (tags), qwen25-math-cot (a box), "
        "plain (tags of reasoning, no chat template).",
    )
    format_weight: float = flag(
        1.0,
        "Weight of the rewards for the shape alone that --prompt_type asks for, tags or a box (each at most 0.5)."
        + ANY_WEIGHT,
    )

    def __post_init__(self):
        check_prompt(self.prompt_type, self.num_shots)
        check_least(self, train_problems=0)
        refuse_test_sets(self)


@dataclass
class GSM8KOptions(MathOptions):
    """Data, prompt and rewards of run_gsm8k.py."""

    reward_legacy: bool = flag(
        False,
        "Reward by the reference's arithmetic, defects included: answers compared as texts, regexes that stop at a "
        "line break, unbounded tail penalty, cosine over characters. Goes with --prompt_type reasoning and plain.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.reward_legacy and self.prompt_type not in LEGACY_PROMPT_TYPES:
            raise UserError(
                f"--reward_legacy reads the tags of --prompt_type {' and '.join(LEGACY_PROMPT_TYPES)}, not those of "
                f"{self.prompt_type}; use one of them, or leave it out."
            )


@dataclass
class NuminaOptions(MathOptions):
    """Data, prompt and rewards of run_math.py."""

    data: str = flag(
        NUMINA, "Training data with question or problem, and answer or solution: hub name, folder or file."
    )


def worked_example(options: MathOptions) -> tuple[dict, str]:
    """(a problem with its prompt, its right answer in the shape asked for), which the check at the start has graded."""
    exemplar = EXEMPLARS[0]
    shots = draw_shots(options.num_shots, 0, 0)
    row = {"gold": exemplar.answer, "gold_text": exemplar.answer}
    return row | prompt_columns(exemplar.question, options.prompt_type, shots), solution(exemplar, options.prompt_type)


def load_problems(
    options: MathOptions, eval_problems: int, load: Callable[[str, str], Dataset], validate: bool, seed: int
) -> tuple[Dataset, Dataset | None]:
    """(training, validation) rows with prompts; validation ones, if asked for, are never trained on.

    Which problems are set aside does not depend on the seed. Raises `UserError` when no training problem is left.
    """
    train, validation = load(options.data, options.split), None
    if validate and (options.eval_data or options.eval_split):
        validation = load(options.eval_data or options.data, options.eval_split or "validation")
        validation = first_by_hash(validation, eval_problems)
    elif validate:
        validation = set_aside(train, eval_problems)
    if validation is not None:
        train = without(train, validation["question"])
        validation = add_prompts(validation, options.prompt_type, options.num_shots, seed)
    if options.train_problems:
        train = draw(train, options.train_problems, seed)
    return add_prompts(train, options.prompt_type, options.num_shots, seed), validation
