"""Flags of the bonuses on the text of a response (knn-sent, entropy, ltree). "ours": paper and program are silent."""

from dataclasses import dataclass

from common.flags import flag


@dataclass
class SentenceMemoryFlags:
    """Memory-R's sentence-level memory (knn-sent); its other flags are those of knn and knn+."""

    sent_steps: int = flag(
        1000, "knn-sent: reasoning steps that a memory holds per question, 1 or more; the oldest is dropped (ours)."
    )


@dataclass
class TextEntropyFlags:
    """Memory-R's text entropy (entropy)."""

    entropy_mode: str = flag(
        "gain", "entropy: gain (bits that a response adds; ours) or total (bits per character; the authors' program)."
    )
    entropy_texts: int = flag(1000, "entropy: past responses whose characters are counted, 1 or more.")
    entropy_window: int = flag(
        1000, "entropy: past raw values that, with the current batch, set the min-max range, 1 or more."
    )


@dataclass
class LexicalNoveltyFlags:
    """Memory-R's lexical novelty (ltree)."""

    ltree_form: str = flag(
        "jaccard", "ltree: jaccard (sets of words; ours) or tree (edit distance of the lines; the authors' program)."
    )
    ltree_texts: int = flag(50, "ltree: past responses that a response is compared with, 1 or more.")
    ltree_lines: int = flag(8, "ltree, tree: lines of a response that are compared, 1 or more.")
    ltree_window: int = flag(
        1000, "ltree: past raw values that, with the current batch, set the min-max range, 1 or more (ours)."
    )
    ltree_beta: float = flag(0.1, "ltree: weight of the normalised novelty, which is in [0, 1].")
