"""Prompts of multiple choice: the letter in tags, or behind "Answer:" for a policy without chat template."""

from collections.abc import Sequence

from datasets import Dataset

from common.errors import UserError, check_number
from rewards.choice import FIRST_LINE, LETTERS

_TAGGED = (
    "Answer the multiple-choice question. Write your reasoning between <{thinking}> and </{thinking}>, then only the "
    "letter of the right option between <answer> and </answer>, each tag on a line of its own."
)
SYSTEM_PROMPTS = {
    "reasoning": _TAGGED.format(thinking="reasoning"),
    "think": _TAGGED.format(thinking="think"),
    "plain": "Answer the multiple-choice question with the letter of the right option.",
}
PROMPT_TYPES = tuple(SYSTEM_PROMPTS)
EXAMPLE = {
    "id": "example",
    "question": "Which of these floats on water?",
    "choices": ["a stone", "a coin", "a cork", "a key"],
    "gold": "a cork",
    "subject": "",
}


def check_prompt(prompt_type: str, num_shots: int) -> None:
    """Raise `UserError` unless such prompts can be made."""
    if prompt_type not in PROMPT_TYPES:
        raise UserError(
            f"--prompt_type={prompt_type!r} does not go with multiple choice; use one of {', '.join(PROMPT_TYPES)}."
        )
    check_number("num_shots", num_shots, least=0)
    if num_shots and prompt_type != "plain":
        raise UserError(
            f"--num_shots={num_shots} goes with --prompt_type=plain for multiple choice: the examples show a letter "
            f"alone, and --prompt_type={prompt_type} asks for reasoning."
        )


def asked(question: str, choices: Sequence[str]) -> str:
    """The question and one line ``A. text`` per option."""
    return "\n".join([question.strip(), *(f"{LETTERS[index]}. {text}" for index, text in enumerate(choices))])


def prompt(row: dict, prompt_type: str) -> list[dict] | str:
    """A conversation, or for "plain" a text that ends in ``Answer:`` and is continued by the answer on its line.

    Args:
        row: question and choices; with "plain" also shots, solved rows that stand before the question.
    """
    system, question = SYSTEM_PROMPTS[prompt_type], asked(row["question"], row["choices"])
    if prompt_type == "plain":
        solved = [
            f"{asked(shot['question'], shot['choices'])}\nAnswer: {LETTERS[shot['choices'].index(shot['gold'])]}"
            for shot in row.get("shots", ())
        ]
        return "\n\n".join([system, *solved, f"{question}\nAnswer:"])
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def prompt_columns(row: dict, prompt_type: str) -> dict:
    return {"prompt": prompt(row, prompt_type), FIRST_LINE: prompt_type == "plain"}


def add_prompts(rows: Dataset, prompt_type: str, num_shots: int = 0, seed: int = 0) -> Dataset:
    """``rows`` with the columns prompt and `FIRST_LINE`; shots are those of `tasks.choice.problems.with_shots`.

    Raises `UserError` as `check_prompt` does.
    """
    check_prompt(prompt_type, num_shots)
    columns = rows.map(lambda row: prompt_columns(row, prompt_type))
    return columns.remove_columns("shots") if num_shots else columns


def solution(reasoning: str, answer: str, prompt_type: str) -> str:
    """The completion that says ``answer`` in the shape asked for; "plain" has no room for ``reasoning``."""
    if prompt_type == "plain":
        return f" {answer}"
    return f"<{prompt_type}>\n{reasoning}\n</{prompt_type}>\n<answer>\n{answer}\n</answer>"


def worked_example(prompt_type: str) -> tuple[dict, str]:
    """(a row with its prompt, its right answer in the shape asked for), which the check at the start has graded."""
    row = EXAMPLE | prompt_columns(EXAMPLE, prompt_type)
    letter = LETTERS[EXAMPLE["choices"].index(EXAMPLE["gold"])]
    return row, solution("Cork is lighter than water.", letter, prompt_type)
