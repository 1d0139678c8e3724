"""Traces of multiple choice for a supervised start: an option in words as the reasoning, then as the answer.

The shape that a prompt asks for, which small pretrained policies do not keep by themselves. With probability
``--right_share`` the option is the right one, else one of the wrong ones. Take other questions than those of the
reinforcement learning after it, so that the policy learns the habit and not the answers; those that run_choice.py sets
aside for validation come last. ``--answer text`` is for policies too small to find the letter of an option that they
have named:

python -m tasks.choice.traces --data allenai/ai2_arc --subset ARC-Challenge --output outputs/arc/traces.jsonl
"""

from dataclasses import dataclass
from pathlib import Path
from random import Random

from common.errors import UserError, run_cli
from common.files import write_jsonl
from common.flags import OutputLines, check_choices, check_least, check_shares, flag, parse_one
from rewards.choice import LETTERS
from tasks.choice.problems import ARC, CHALLENGE, load_choice, shuffle_choices
from tasks.choice.prompts import check_prompt, prompt, solution
from tasks.load import refuse_test_sets
from tasks.validation_split import for_traces

ANSWERS = ("letter", "text")


@dataclass
class TraceOptions:
    """Which questions, how answered, and where the traces go."""

    output: OutputLines = flag("", "File to write, .jsonl. Needed.")
    data: str = flag(ARC, "Questions with choices and answer: hub name, folder, or jsonl, json or parquet file.")
    subset: str = flag(CHALLENGE, "Part of a hub data set, or of a folder of ARC; of one without parts leave it empty.")
    split: str = flag("train", "Split of a hub data set or folder; not test.")
    prompt_type: str = flag(
        "reasoning", "How is asked: reasoning or think (the letter in tags), plain (the letter behind Answer:)."
    )
    answer: str = flag("letter", "What stands as the answer: letter, or text (the option in words, which counts too).")
    n: int = flag(0, "Traces, one a question; 0 takes all questions.")
    right_share: float = flag(1.0, "Share of traces with the right option, in [0, 1].")
    seed: int = flag(0, "Seed of the options' order and of the wrong answers.")

    def __post_init__(self):
        check_prompt(self.prompt_type, 0)
        check_choices(self, answer=ANSWERS)
        refuse_test_sets(self)
        check_least(self, n=0)
        check_shares(self, "right_share")


def trace(row: dict, options: TraceOptions, rng: Random) -> dict:
    """The columns prompt and completion, both conversations or both texts, of one question."""
    option = row["gold"]
    if rng.random() >= options.right_share:
        option = rng.choice([text for text in row["choices"] if text != option])
    answer = option if options.answer == "text" else LETTERS[row["choices"].index(option)]
    asked, answered = prompt(row, options.prompt_type), solution(option, answer, options.prompt_type)
    return {
        "prompt": asked,
        "completion": answered if isinstance(asked, str) else [{"role": "assistant", "content": answered}],
    }


def main() -> None:
    options = parse_one(TraceOptions)
    rows = load_choice(options.data, options.split, options.subset)
    if options.n > len(rows):
        raise UserError(f"--n={options.n} is more than the {len(rows)} questions of --data={options.data!r}.")
    rows = shuffle_choices(for_traces(rows, options.n), options.seed)
    rng = Random(f"{options.seed}-traces")
    write_jsonl(Path(options.output), (trace(row, options, rng) for row in rows))
    print(f"{len(rows)} traces: {options.output}")


if __name__ == "__main__":
    run_cli(main)
