"""Memory-R's lexical novelty (arXiv 2504.02273; removed from the authors' program in May 2025): GRPO plus a reward for
wording a response unlike the last ones.

Plain GRPO compares the answers of one group only; here a response is compared with a window of past responses, by its
set of words ("jaccard") or by the edit distance of trees whose leaves are its lines ("tree"). Differences from the
authors' program (each on purpose): the batch is scored before it is stored, so that no response meets itself; lines are
kept in their order and chosen by their text, not drawn by lot and shuffled; a line may be a little changed, where there
any two lines that are not equal differ by 1; words end at signs too, so that 2*3=6 has five; a distance is a share,
where there a longer response is further from all; the min-max range is one per batch; an empty window pays 0, not 1.
"""

import math
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from apted import APTED, Config
from apted.helpers import Tree
from torch import Tensor

from common.errors import check_choice, check_number
from intrinsic.parts.past_texts import AgainstPastTexts
from intrinsic.rollout import Rollout, text_id

Words = frozenset[str]
_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str, lines: int) -> Words:
    """The distinct words of a text, in lower case: runs of letters and digits, and every other sign by itself.

    ``lines`` has no part in it.
    """
    return frozenset(_WORD.findall(text.lower()))


def jaccard_distance(first: Words, second: Words) -> float:
    """1 - |both| / |either| of two sets, in [0, 1]; 0 for two empty ones."""
    both = len(first & second)
    either = len(first) + len(second) - both
    return 1.0 - both / either if either else 0.0


def line_words(text: str, lines: int) -> tuple[Words, ...]:
    """The words of each of up to ``lines`` non-empty lines, in the order of the text.

    Of a longer text the lines with the smallest hashes are taken: a line that two texts share is then taken in both or
    in neither, as far as the numbers allow (Broder's min-wise sampling), and no random state is involved.
    """
    found = [line.strip() for line in text.splitlines() if line.strip()]
    chosen = sorted(range(len(found)), key=lambda index: (text_id(found[index]), index))[:lines]
    return tuple(words(found[index], lines) for index in sorted(chosen))


class _LineCosts(Config):
    """Inserting or deleting a line costs 1, changing one the Jaccard distance of its words."""

    valuecls = float

    def rename(self, node1: Tree, node2: Tree) -> float:
        return jaccard_distance(node1.name, node2.name)


def tree_distance(first: tuple[Words, ...], second: tuple[Words, ...]) -> float:
    """Tree edit distance of two texts, each a root with its lines as leaves, over the larger number of lines; [0, 1].

    Computed by APTED (Pawlik and Augsten, Information Systems 56, 2016). 0 for two texts without lines.
    """
    trees = [Tree(frozenset(), *map(Tree, lines)) for lines in (first, second)]
    return APTED(*trees, _LineCosts()).compute_edit_distance() / max(len(first), len(second), 1)


class _Form(NamedTuple):
    view: Callable[[str, int], Any]
    distance: Callable[[Any, Any], float]


FORMS = {"jaccard": _Form(words, jaccard_distance), "tree": _Form(line_words, tree_distance)}


class LexicalNovelty(AgainstPastTexts):
    """``--use_ir=ltree``: mean distance to the last responses, min-max normalised, in [0, beta].

    Args:
        form: "jaccard", distance of word sets, or "tree", edit distance of trees of lines.
        texts: past responses that are compared with.
        lines: lines of a response that "tree" compares.
        window: past raw values in the min-max range, besides the batch.
        beta: weight of the normalised novelty.

    Raises `UserError` for an unknown form, a size below 1, or a weight that is not finite.
    """

    name = "ltree"
    advantage_weight = 10.0

    def __init__(self, form: str = "jaccard", texts: int = 50, lines: int = 8, window: int = 1000, beta: float = 0.1):
        check_choice("ltree_form", form, FORMS)
        for flag, value in (("ltree_texts", texts), ("ltree_lines", lines), ("ltree_window", window)):
            check_number(flag, value, least=1)
        check_number("ltree_beta", beta)
        super().__init__(window)
        self.form = form
        self.lines = lines
        self.beta = beta
        self.past: deque[str] = deque(maxlen=texts)

    @classmethod
    def from_options(cls, options) -> "LexicalNovelty":
        return cls(
            form=options.ltree_form,
            texts=options.ltree_texts,
            lines=options.ltree_lines,
            window=options.ltree_window,
            beta=options.ltree_beta,
        )

    def raw(self, rollout: Rollout) -> Tensor:
        """Mean distance (B,) to the past responses, in [0, 1]; NaN for an empty response or without a past."""
        view, distance = FORMS[self.form]
        past = Counter(view(text, self.lines) for text in self.past)
        novelty = {"": math.nan}
        for text in dict.fromkeys(rollout.reasonings):
            if text and past:
                own = view(text, self.lines)
                novelty[text] = sum(distance(own, other) * times for other, times in past.items()) / past.total()
        return torch.tensor([novelty.get(text, math.nan) for text in rollout.reasonings])

    def store(self, texts: Sequence[str]) -> None:
        self.past.extend(texts)

    def state_dict(self) -> dict[str, Any]:
        """The past responses, oldest first, and the window of raw values."""
        return {"past": list(self.past), **super().state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.past = deque(state["past"], maxlen=self.past.maxlen)

    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ltree_form": self.form,
            "ltree_texts": self.past.maxlen,
            "ltree_lines": self.lines,
            "ltree_window": self.window.window,
            "ltree_beta": self.beta,
        }
