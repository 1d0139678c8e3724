"""The text by which a memory looks a problem up: the last user message, unless the text encoder cuts that off."""

from collections.abc import Callable, Iterable

from datasets import Dataset
from torch import Tensor

from intrinsic.base import Bonus
from intrinsic.knn_memory import MemoryR
from policy.chat import message_text

QUESTION = "question"


def key_column(
    bonuses: Iterable[Bonus], rows: Dataset, encode: Callable[[list[str]], Tensor] | None
) -> tuple[str | None, str]:
    """(the column of ``rows`` to look problems up by, or None for the last user message; what is to be said of it).

    One rule for all rows, so that keys of one run can be compared: where the encoder reads every message whole, they
    are the keys. Where it would cut one, the keys are the texts of the column question, if there is one: in SQL a
    schema stands before the question, and worked examples before the question of a plain prompt, so that all keys
    could be of what comes before it. Nothing is said where nothing is cut, nor of an encoder that does not tell.
    """
    looked_up = any(isinstance(getattr(bonus, "bonus", bonus), MemoryR) for bonus in bonuses)
    if not looked_up or not isinstance(rows, Dataset) or not hasattr(encode, "count_cut"):
        return None, ""
    messages = list(dict.fromkeys(message_text(prompt, "user") for prompt in rows["prompt"]))
    cut = encode.count_cut(messages)
    if not cut:
        return None, ""
    said = (
        f"the text encoder cuts off {cut} of the {len(messages)} different last user messages of the training prompts"
    )
    if QUESTION not in rows.column_names:
        return None, (
            f"{said}, by which memories look problems up: those that begin alike are one to them; give the rows a "
            f"column {QUESTION}, or use an encoder that reads more, such as --encoder=policy"
        )
    questions = list(dict.fromkeys(map(str, rows[QUESTION])))
    still = encode.count_cut(questions)
    rest = f", of which {still} of {len(questions)} are cut off too" if still else ""
    return QUESTION, f"{said}: memories look problems up by the column {QUESTION} instead{rest}"
