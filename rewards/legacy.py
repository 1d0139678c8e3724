"""Memory-R's rewards exactly as its code computes them (utils_gsm8k.py at a193f4f), to measure its defects.

Answers and golds are compared as texts, the regexes stop at a line break, the tail penalty has no floor and counts the
whole text where no line break follows the last tag, and the cosine has a period of twice the limit in characters.
"""

import re

from rewards.cosine import cosine
from rewards.format import completion_text

_STRICT = re.compile(r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n$")
# In linear time: of the answers after the reasoning, the first one matters, or the last, which may be on the next line.
_SOFT = re.compile(r"<reasoning>(?:(?>.*?</reasoning>\s*<answer>)|(?>.*</reasoning>\s*<answer>)).*?</answer>")


def extract(text: str) -> str:
    """What follows the last opening answer tag, up to the first closing one; the whole text where there is no tag."""
    return text.split("<answer>")[-1].split("</answer>")[0].strip()


def count_xml(text: str) -> float:
    """The reference's tag count; unbounded below."""
    reward = 0.125 * (text.count("<reasoning>\n") == 1) + 0.125 * (text.count("\n</reasoning>\n") == 1)
    if text.count("\n<answer>\n") == 1:
        reward += 0.125 - 0.001 * len(text.split("\n</answer>\n")[-1])
    if text.count("\n</answer>") == 1:
        reward += 0.125 - 0.001 * (len(text.split("\n</answer>")[-1]) - 1)
    return reward


class LegacyReward:
    """A reward column from a function of text and gold.

    Args:
        name: name of the column.
        value: (completion text, gold as the data set writes it) -> reward.
        full: what an ideal answer gets; None where the reference's defects withhold it.
    """

    def __init__(self, name: str, value, full: float | None = None):
        self.__name__, self.value, self.full = name, value, full

    def __call__(self, prompts, completions, gold_text, **kwargs) -> list[float]:
        texts = map(completion_text, completions)
        return [float(self.value(text, gold)) for text, gold in zip(texts, gold_text, strict=True)]


def legacy_rewards(with_cosine: bool, max_length: int) -> list[LegacyReward]:
    """The reference's columns, in its order."""

    def is_right(text: str, gold: str) -> bool:
        return extract(text) == gold

    columns = [
        LegacyReward("xml_count", lambda text, gold: count_xml(text)),
        LegacyReward("soft_format", lambda text, gold: 0.5 * bool(_SOFT.match(text))),
        LegacyReward("strict_format", lambda text, gold: 0.5 * bool(_STRICT.match(text))),
        LegacyReward("integer", lambda text, gold: 0.5 * extract(text).isdigit()),
        LegacyReward("correctness", is_right, full=1.0),
    ]
    if with_cosine:
        columns.append(LegacyReward("cosine", lambda text, gold: cosine(len(text) / max_length, is_right(text, gold))))
    return columns
