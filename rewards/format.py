"""Reading the tags of a completion: thinking, answer blocks, and the format reward.

Every function takes linear time in the text and raises on none: only `str.find` and its kin run over a completion.
"""

from typing import NamedTuple

ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
THINKING = (("<think>", "</think>"), ("<reasoning>", "</reasoning>"))
# Stands where a thinking block was, so that the texts around it never join into a new tag or expression.
CUT = "\0"


class Answer(NamedTuple):
    """The last complete answer block: its content, and whether an earlier complete block precedes it."""

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


def last_answer(text: str) -> Answer | None:
    """The last complete ``<answer>...</answer>`` of ``text``, from the opening tag nearest to its end; else None."""
    start = text.rfind(ANSWER_OPEN, 0, max(0, text.rfind(ANSWER_CLOSE)))
    if start < 0:
        return None
    end = text.find(ANSWER_CLOSE, start)
    first_end = text.find(ANSWER_CLOSE, text.find(ANSWER_OPEN))
    return Answer(text[start + len(ANSWER_OPEN) : end], repeated=first_end < start)


def is_well_formed(text: str) -> bool:
    """Whether ``text`` is one thinking block, then one answer block, and nothing else but whitespace.

    The opening thinking tag may be missing (it then sits in the prompt); no other tag may appear, in thinking either.
    """
    opened, closed = [[tags[side] for tags in THINKING if tags[side] in text] for side in (0, 1)]
    if len(opened) > 1 or len(closed) != 1:
        return False
    once = [*opened, *closed, ANSWER_OPEN, ANSWER_CLOSE]
    if any(text.count(tag) != 1 for tag in once):
        return False
    thinking, rest = text.split(closed[0])
    if opened and ((opened[0], closed[0]) not in THINKING or not thinking.lstrip().startswith(opened[0])):
        return False
    rest = rest.strip()
    return rest.startswith(ANSWER_OPEN) and rest.endswith(ANSWER_CLOSE)


class FormatReward:
    """TRL reward column "format": 1.0 for a completion of the asked shape (`is_well_formed`), else 0.0."""

    __name__ = "format"

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        return [float(is_well_formed(completion_text(completion))) for completion in completions]
