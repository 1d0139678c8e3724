"""Reading a completion: its thinking, the place of its answer, its shape, and the rewards for shape alone.

Every function takes linear time in the text and raises on none: only `str.find` and its kin run over a completion.
"""

from enum import StrEnum
from typing import NamedTuple

from common.errors import UserError
from common.thinking import THINKING
from rewards.boxes import last_outer_box, outer_boxes

PLACE = "answer_place"  # column of rows with prompts: where each prompt asks for the answer
SHAPE_REWARD = 0.5
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
# Stands where a thinking block was, so that the texts around it never join into a new tag or expression.
CUT = "\0"
# What may stand on the lines below the box: the end of the formula that holds it.
_FORMULA_ENDS = ("", ".", "$$", "$$.", "\\]", "\\].", "\\)", "\\).")


class AnswerPlace(StrEnum):
    """Where a prompt asks for the final answer, outside the thinking in either case.

    TAGS: in one ``<answer>`` block. BOX: in ``\\boxed{}``; of several complete boxes the last one counts, as in the
    graders of MATH, and a box around the whole of it is no other answer.
    """

    TAGS = "tags"
    BOX = "box"

    @classmethod
    def of_row(cls, row: dict) -> "AnswerPlace":
        """The place that the prompt of ``row`` asks for, as its column `PLACE` says; tags where it has none."""
        place = row.get(PLACE, cls.TAGS)
        if place not in tuple(cls):
            raise UserError(f"{PLACE}={place!r} is unknown; use one of {', '.join(cls)}.")
        return cls(place)


class Answer(NamedTuple):
    """The answer at its place: its content, and whether it is a block that an earlier complete one precedes."""

    text: str
    repeated: bool


def completion_text(completion: str | list[dict]) -> str:
    """The text the model wrote: a string as it is, of a TRL conversation the content of its last message."""
    if isinstance(completion, str):
        return completion
    return (completion[-1]["content"] or "") if completion else ""


def cut_thinking(text: str) -> str:
    """``text`` without its ``<think>`` and ``<reasoning>`` blocks.

    A closing tag without an opening one closes a block that the prompt opened: all text before it is thinking. An
    opening tag without a closing one starts thinking that was never finished: all text after it is thinking.
    """
    (open_tag, close_tag), *others = THINKING
    for other_open, other_close in others:
        text = text.replace(other_open, open_tag).replace(other_close, close_tag)
    *closed, rest = text.split(close_tag)
    unopened = next((index for index in reversed(range(len(closed))) if open_tag not in closed[index]), -1)
    return CUT.join(part.partition(open_tag)[0] for part in [*closed[unopened + 1 :], rest])


def outside_thinking(text: str) -> str:
    """`cut_thinking` of ``text``; all of it where nothing stands outside the thinking."""
    outside = cut_thinking(text)
    return outside if outside.replace(CUT, "").strip() else text


def last_answer(text: str) -> Answer | None:
    """The last complete ``<answer>...</answer>`` of ``text``, from the opening tag nearest to its end; else None."""
    start = text.rfind(ANSWER_OPEN, 0, max(0, text.rfind(ANSWER_CLOSE)))
    if start < 0:
        return None
    end = text.find(ANSWER_CLOSE, start)
    first_end = text.find(ANSWER_CLOSE, text.find(ANSWER_OPEN))
    return Answer(text[start + len(ANSWER_OPEN) : end], repeated=first_end < start)


def placed_answer(completion: str, place: AnswerPlace) -> Answer | None:
    """The answer of ``completion`` at ``place``, outside the thinking; None where none is complete."""
    outside = cut_thinking(completion)
    if place is AnswerPlace.TAGS:
        return last_answer(outside)
    content = last_outer_box(outside)
    if content is None:
        return None
    inner = [box.content(content) for box in outer_boxes(content) if (box.start, box.end) == (0, len(content))]
    return Answer((inner or [content])[0], repeated=False)


def is_well_formed(text: str, place: AnswerPlace = AnswerPlace.TAGS) -> bool:
    """Whether ``text`` has the shape that a prompt with its answer at ``place`` asks for.

    Tags: one thinking block, then one answer block, and nothing else but whitespace; no other tag may appear, in
    thinking either. Box: no tags but those of at most one thinking block at the start, and after it exactly one box, in
    the last line of text. The opening thinking tag may be missing in either (it then sits in the prompt).
    """
    return _is_tagged(text) if place is AnswerPlace.TAGS else _is_boxed(text)


def _is_boxed(text: str) -> bool:
    if ANSWER_OPEN in text or ANSWER_CLOSE in text or not _has_whole_thinking(text):
        return False
    outside = cut_thinking(text)
    boxes = outer_boxes(outside)
    if len(boxes) != 1:
        return False
    _, *lines = outside[boxes[0].end :].split("\n")
    return all(line.strip() in _FORMULA_ENDS for line in lines)


def _is_tagged(text: str) -> bool:
    if text.count(ANSWER_OPEN) != 1 or text.count(ANSWER_CLOSE) != 1 or not _has_whole_thinking(text):
        return False
    closing = next((tag for _, tag in THINKING if tag in text), None)
    rest = text.partition(closing)[2].strip() if closing else ""
    return rest.startswith(ANSWER_OPEN) and rest.endswith(ANSWER_CLOSE)


def _has_whole_thinking(text: str) -> bool:
    """Whether the thinking tags of ``text`` are those of one block at its start, without the opening one, or none."""
    opened, closed = [[tags[side] for tags in THINKING if tags[side] in text] for side in (0, 1)]
    if len(closed) > 1 or any(text.count(tag) != 1 for tag in [*opened, *closed]):
        return False
    return not opened or ((*opened, *closed) in THINKING and text.lstrip().startswith(opened[0]))


class FormatReward:
    """TRL reward column "format": 1.0 for a completion with the tags asked for (`is_well_formed`), else 0.0."""

    __name__ = "format"
    full = 1.0

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        return [float(is_well_formed(completion_text(completion))) for completion in completions]


class BoxFormatReward:
    """TRL reward column "box_format": 0.5 for a completion with the one box asked for (`is_well_formed`), else 0."""

    __name__ = "box_format"
    full = SHAPE_REWARD

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        texts = map(completion_text, completions)
        return [SHAPE_REWARD * is_well_formed(text, AnswerPlace.BOX) for text in texts]
