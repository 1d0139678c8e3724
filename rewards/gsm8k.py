"""Reward columns of GSM8K and of mathematics: Memory-R's five, its cosine comparison, and step markers, mended.

Memory-R (arXiv:2504.02273, section 4.1 and utils_gsm8k.py) pays correctness 1.0 and up to 0.5 for each of four shapes.
Against the reference: numbers are compared as numbers, regexes see past a line break, no reward falls below 0, and
the cosine counts tokens and is clamped. `rewards.legacy` has the reference's arithmetic.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from common.thinking import THINKING
from rewards.correctness import CorrectnessReward, GradeFunction, place_of_each
from rewards.cosine import CosineReward
from rewards.format import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    SHAPE_REWARD,
    AnswerPlace,
    BoxFormatReward,
    completion_text,
    is_well_formed,
    placed_answer,
)

TAG_REWARD = 0.125
TAIL_PENALTY = 0.001  # per character after the last closing tag
STEPS_WANTED = 3

_INTEGER = re.compile(r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)")
_STEP = re.compile(r"^(?:step \d+|\d+[.)]|[-*•])[ :.]|\b(?:first|second|third|next|then|finally)(?:ly)?,", re.I | re.M)


class IntegerReward:
    """0.5 where the one answer at its place (`AnswerPlace`) is an integer, commas between thousands allowed."""

    __name__ = "integer"

    def __call__(self, prompts, completions, answer_place=None, **kwargs) -> list[float]:
        answers = [
            placed_answer(completion_text(completion), AnswerPlace(place))
            for completion, place in zip(completions, place_of_each(answer_place, prompts), strict=True)
        ]
        return [
            SHAPE_REWARD * bool(answer and not answer.repeated and _INTEGER.fullmatch(answer.text.strip()))
            for answer in answers
        ]


class StrictFormatReward:
    """0.5 where the whole completion is one thinking and one answer block with every tag on a line of its own.

    The opening thinking tag may be missing, here and in the two rewards below: it then sits in the prompt.
    """

    __name__ = "strict_format"
    full = SHAPE_REWARD

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        return [SHAPE_REWARD * _is_strict(completion_text(completion)) for completion in completions]


def _is_strict(text: str) -> bool:
    lines = text.split("\n")
    tags = [tag for pair in THINKING for tag in pair] + [ANSWER_OPEN, ANSWER_CLOSE]
    return is_well_formed(text) and all(lines.count(tag) == text.count(tag) for tag in tags)


class SoftFormatReward:
    """0.5 where the completion begins with a thinking block that an answer block follows, whatever comes after.

    The block has no other thinking tag inside, as an opening tag written behind the prompt's own would be.
    """

    __name__ = "soft_format"
    full = SHAPE_REWARD

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        return [SHAPE_REWARD * _is_soft(completion_text(completion)) for completion in completions]


def _is_soft(text: str) -> bool:
    for opening, closing in THINKING:
        thinking, closed, rest = text.partition(closing)
        steps = thinking.lstrip().removeprefix(opening)
        if closed and not any(tag in steps for pair in THINKING for tag in pair):
            rest = rest.lstrip()
            return rest.startswith(ANSWER_OPEN) and ANSWER_CLOSE in rest
    return False


class XmlCountReward:
    """0.125 for each of the four tags that occurs once, less 0.001 per character after the last; in [0, 0.5].

    A missing opening tag counts as one where its closing tag occurs once.
    """

    __name__ = "xml_count"
    full = SHAPE_REWARD

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        return [_xml_count(completion_text(completion)) for completion in completions]


def _xml_count(text: str) -> float:
    pair = next((pair for pair in THINKING if pair[0] in text or pair[1] in text), THINKING[0])
    opening, closing = map(text.count, pair)
    opens_once = opening == 1 or (opening == 0 and closing == 1)
    others = [closing, text.count(ANSWER_OPEN), text.count(ANSWER_CLOSE)]
    reward = TAG_REWARD * (opens_once + sum(count == 1 for count in others))
    tail = text.rpartition(ANSWER_CLOSE)[2].strip() if ANSWER_CLOSE in text else ""
    return max(0.0, reward - TAIL_PENALTY * len(tail))


class StepsReward:
    """min(1, markers / 3) for numbered, listed or named steps, like open-r1's reasoning-steps reward."""

    __name__ = "steps"

    def __call__(self, prompts, completions, **kwargs) -> list[float]:
        found = [len(_STEP.findall(completion_text(completion))) for completion in completions]
        return [min(1.0, count / STEPS_WANTED) for count in found]


def shape_rewards(place: AnswerPlace) -> list:
    """The columns that pay for shape alone: those of the tags, or the one of the box; what a prompt does not ask for is
    not paid.
    """
    if place is AnswerPlace.BOX:
        return [BoxFormatReward()]
    return [XmlCountReward(), SoftFormatReward(), StrictFormatReward()]


def gsm8k_rewards(
    grade: GradeFunction, legacy: bool, cosine: bool, max_length: int, place: AnswerPlace = AnswerPlace.TAGS
) -> list:
    """The reward columns of GSM8K, in the reference's order; ``legacy`` takes the reference's arithmetic, with tags."""
    if legacy:
        from rewards.legacy import legacy_rewards

        return legacy_rewards(cosine, max_length)
    columns = [*shape_rewards(place), IntegerReward(), CorrectnessReward(grade)]
    return [*columns, *([CosineReward(grade, max_length)] if cosine else [])]


def math_rewards(grade: GradeFunction, cosine: bool, max_length: int, place: AnswerPlace = AnswerPlace.TAGS) -> list:
    """The reward columns of the second data set (section 4.2): shape and steps, no integer reward."""
    columns = [*shape_rewards(place), StepsReward(), CorrectnessReward(grade)]
    return [*columns, *([CosineReward(grade, max_length)] if cosine else [])]


def weights_of(rewards: Sequence[Callable], format_weight: float, extra: Mapping[str, float]) -> list[float]:
    """One weight per reward column: correctness 1, those that ``extra`` names as it says, shape ``format_weight``."""
    fixed = {"correctness": 1.0, **extra}
    return [fixed.get(reward.__name__, format_weight) for reward in rewards]
