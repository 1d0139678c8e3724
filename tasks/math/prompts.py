"""Prompts for word problems and mathematics: prompt types, and worked examples of our own for few-shot prompts."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from datasets import Dataset

from common.errors import UserError, check_choice
from rewards.format import PLACE, AnswerPlace

_TAGGED = (
    "Solve the problem. Write your steps between <{thinking}> and </{thinking}>, then only the final answer between "
    "<answer> and </answer>, each tag on a line of its own:\n"
    "<{thinking}>\nyour steps\n</{thinking}>\n<answer>\nthe final answer\n</answer>"
)
_BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
SYSTEM_PROMPTS = {
    "reasoning": _TAGGED.format(thinking="reasoning"),
    "think": _TAGGED.format(thinking="think"),
    "qwen25-math-cot": _BOXED,
    "plain": _TAGGED.format(thinking="reasoning"),
}
PROMPT_TYPES = tuple(SYSTEM_PROMPTS)


def place_of(prompt_type: str) -> AnswerPlace:
    """Where prompts of ``prompt_type`` ask for the answer; rewards and evaluations look for it there alone."""
    return AnswerPlace.BOX if SYSTEM_PROMPTS[prompt_type] == _BOXED else AnswerPlace.TAGS


class Exemplar(NamedTuple):
    """A worked problem: its question, its steps and its final answer."""

    question: str
    steps: str
    answer: str


EXEMPLARS = (
    Exemplar(
        "A baker fills 6 trays with 12 rolls each and sells 50 of the rolls. How many rolls are left?",
        "The trays hold 6 * 12 = 72 rolls.\nAfter selling 50 there are 72 - 50 = 22 rolls.",
        "22",
    ),
    Exemplar(
        "Noor reads 15 pages on Monday and twice as many on Tuesday. Her book has 100 pages. How many are left?",
        "On Tuesday she reads 2 * 15 = 30 pages.\nIn two days she reads 15 + 30 = 45 pages.\n100 - 45 = 55 are left.",
        "55",
    ),
    Exemplar(
        "A ticket costs $8 for adults and half of that for children. What do 2 adults and 3 children pay together?",
        "A child's ticket costs 8 / 2 = 4 dollars.\nAdults pay 2 * 8 = 16 and children 3 * 4 = 12.\n16 + 12 = 28.",
        "28",
    ),
    Exemplar(
        "A tank of 240 litres is filled at 16 litres a minute. A leak loses 4 litres a minute. "
        "How many minutes until it is full?",
        "The tank gains 16 - 4 = 12 litres a minute.\n240 / 12 = 20 minutes.",
        "20",
    ),
    Exemplar(
        "Of 80 seedlings a quarter dies. The gardener plants half of the others in one bed. How many are in that bed?",
        "80 / 4 = 20 die, so 80 - 20 = 60 live.\nHalf of them is 60 / 2 = 30.",
        "30",
    ),
    Exemplar(
        "A train leaves at 9 o'clock and arrives at 13 o'clock, 360 kilometres away. "
        "How many kilometres does it travel per hour?",
        "The journey takes 13 - 9 = 4 hours.\n360 / 4 = 90 kilometres per hour.",
        "90",
    ),
    Exemplar(
        "Three friends share a prize of $1,500 so that the first gets twice as much as each of the others. "
        "How many dollars does the first get?",
        "The prize is 2 + 1 + 1 = 4 shares.\nA share is 1500 / 4 = 375 dollars.\nThe first gets 2 * 375 = 750.",
        "750",
    ),
    Exemplar(
        "Luis earns $14 an hour and works 5 hours on each of 4 days. He spends $95. How many dollars does he keep?",
        "He works 5 * 4 = 20 hours.\nHe earns 20 * 14 = 280 dollars.\nHe keeps 280 - 95 = 185.",
        "185",
    ),
    Exemplar(
        "A shelf has 4 boards. Each board carries 9 books, but the top one carries 3 fewer. How many books are there?",
        "Three boards carry 3 * 9 = 27 books.\nThe top one carries 9 - 3 = 6.\n27 + 6 = 33.",
        "33",
    ),
)


def solution(exemplar: Exemplar, prompt_type: str) -> str:
    """The exemplar's steps and answer in the shape that ``prompt_type`` asks for."""
    if place_of(prompt_type) is AnswerPlace.BOX:
        return f"{exemplar.steps}\nThe answer is \\boxed{{{exemplar.answer}}}."
    tag = "think" if prompt_type == "think" else "reasoning"
    return f"<{tag}>\n{exemplar.steps}\n</{tag}>\n<answer>\n{exemplar.answer}\n</answer>"


def prompt(question: str, prompt_type: str = "reasoning", shots: Sequence[Exemplar] = ()) -> list[dict] | str:
    """The prompt of ``question``: a conversation, or for "plain" a transcript that needs no chat template.

    Shots come as earlier turns between the system prompt and the question, so the last user turn is the question.
    """
    system = SYSTEM_PROMPTS[prompt_type]
    if prompt_type == "plain":
        turns = [f"Question: {shot.question}\nResponse: {solution(shot, prompt_type)}" for shot in shots]
        return "\n\n".join([system, *turns, f"Question: {question}\nResponse:"])
    messages = [{"role": "system", "content": system}]
    for shot in shots:
        messages.append({"role": "user", "content": shot.question})
        messages.append({"role": "assistant", "content": solution(shot, prompt_type)})
    return [*messages, {"role": "user", "content": question}]


def prompt_columns(question: str, prompt_type: str, shots: Sequence[Exemplar]) -> dict:
    """The columns that say what is asked: the prompt, and where it wants the answer."""
    return {"prompt": prompt(question, prompt_type, shots), PLACE: place_of(prompt_type)}


def draw_shots(num_shots: int, seed: int, index: int) -> list[Exemplar]:
    """``num_shots`` distinct exemplars for the row ``index``, the same whenever seed and index are."""
    return Random(f"{seed}-{index}").sample(EXEMPLARS, num_shots)


def check_prompt(prompt_type: str, num_shots: int) -> None:
    """Raise `UserError` unless such prompts can be made."""
    check_choice("prompt_type", prompt_type, PROMPT_TYPES)
    if not 0 <= num_shots <= len(EXEMPLARS):
        raise UserError(f"--num_shots={num_shots} must lie in 0..{len(EXEMPLARS)}, the worked examples there are.")


def add_prompts(rows: Dataset, prompt_type: str = "reasoning", num_shots: int = 0, seed: int = 0) -> Dataset:
    """``rows`` with the `prompt_columns` of their question; every row draws its own shots.

    Raises `UserError` on an unknown prompt type or more shots than there are exemplars.
    """
    check_prompt(prompt_type, num_shots)

    def with_prompt(row: dict, index: int) -> dict:
        return prompt_columns(row["question"], prompt_type, draw_shots(num_shots, seed, index))

    return rows.map(with_prompt, with_indices=True)
