"""Rows of multiple choice: ARC, MMLU, and files shaped like them.

Every row has the columns id, question, choices (texts, in the order in which they are asked), gold (the text of the
right one) and subject ("" where the source has none).
"""

import re
from collections import defaultdict
from hashlib import blake2b
from random import Random

from datasets import Dataset

from common.errors import UserError
from rewards.choice import LETTERS
from tasks.load import folder_file, load_rows, local_path, require_columns, row_place, whole_number

ARC, MMLU = "allenai/ai2_arc", "cais/mmlu"
CHALLENGE, EASY, ALL = "ARC-Challenge", "ARC-Easy", "all"
# Of MMLU's validation split, where the right answer stands twice: left out.
ANSWER_TWICE = "How many balloons would be required to fill the Empire State Building, which is about 100 stories tall?"
_FILE_OF = {CHALLENGE: "challenge", EASY: "easy"}  # first word of the file of a folder with several parts
# Options that speak of others keep the order of their row: a last one such as "all of the above", or a pair of letters.
_OF_OTHERS = re.compile(r"(?:all|none) of\b|both\b|neither\b", re.IGNORECASE)
_OF_LETTERS = re.compile(r"\b[A-J]\s*(?:,|and|or|&)\s*[A-J]\b|\([A-J]\)")


def load_choice(source: str, split: str | None, part: str = "") -> Dataset:
    """Rows of a file, a folder or a hub data set.

    A folder may hold ``<split>.jsonl``, or ``challenge_<split>.jsonl`` and ``easy_<split>.jsonl``.

    Args:
        part: `CHALLENGE` or `EASY` of ARC, `ALL` of MMLU; "" where the source has no parts.

    Raises `UserError`, with the row, where a question is empty, the options are not 2 to 10 texts, or the answer is
    none of them or stands there twice. Wrong options may be alike, as in some rows of MMLU.
    """
    is_local = local_path(source).exists()
    source = folder_file(source, split, _FILE_OF.get(part, "")) or _without_parts(source, split, part)
    rows = load_rows(source, split, None if is_local else part or None)
    *_, answer = require_columns(rows, ["question", "choices", ("answerKey", "answer")])
    built = []
    for index, row in enumerate(rows):
        if row["question"] == ANSWER_TWICE:
            continue
        try:
            built.append({"id": str(row.get("id", index)), **_row(row, row[answer])})
        except ValueError as error:
            raise UserError(f"{row_place(source, split, index)} {error}; mend or remove the row.") from None
    return Dataset.from_list(built)


def _without_parts(folder: str, split: str | None, part: str) -> str:
    """``folder``; raises `UserError` where it has a file for each part and split, and none for these."""
    words = {path.name.partition("_")[0] for path in local_path(folder).glob("*_*.jsonl")}
    if part and words & set(_FILE_OF.values()):
        known = " or ".join(_FILE_OF)
        wanted = f"; its file would be {_FILE_OF[part]}_{split}.jsonl" if part in _FILE_OF else ""
        raise UserError(
            f"{folder!r} has no questions of the part {part!r} and split {split!r}{wanted}; use a part of {known} and "
            "a split that it has."
        )
    return folder


def _row(row: dict, answer) -> dict:
    question, choices, labels = row["question"], row["choices"], None
    if isinstance(choices, dict):  # as on the hub: {"text": [...], "label": [...]}
        choices, labels = choices.get("text"), choices.get("label")
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"has the question {question!r}, which is no text")
    if not isinstance(choices, list) or not all(isinstance(text, str) and text.strip() for text in choices):
        raise ValueError(f"has the options {choices!r}, which are no list of texts")
    if not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"has {len(choices)} options; 2 to {len(LETTERS)} are allowed")
    position = _unlabelled(answer) if labels is None else _labelled(answer, labels, len(choices))
    if position is None or not 0 <= position < len(choices):
        raise ValueError(f"has the answer {answer!r}, which is none of its {len(choices)} options (counted from 0)")
    texts = [text.strip() for text in choices]
    if texts.count(texts[position]) > 1:
        raise ValueError(f"has the options {choices!r}, of which two are the same text as the answer's")
    return {"question": question, "choices": texts, "gold": texts[position], "subject": str(row.get("subject") or "")}


def _unlabelled(answer) -> int | None:
    """The place of an answer that is a number, counted from 0, or a letter; None of another."""
    is_letter = isinstance(answer, str) and len(answer) == 1
    return LETTERS.find(answer) if is_letter else whole_number(answer)


def _labelled(answer, labels, count: int) -> int:
    """The place of ``answer`` among the ``labels`` of ``count`` options, compared as texts: the number 1 is the "1"."""
    names = list(map(_label, labels)) if isinstance(labels, list) else []
    if len(set(names)) != count or len(names) != count:
        raise ValueError(f"has the labels {labels!r}, which are no {count} different ones, one of each option")
    if _label(answer) not in names:
        raise ValueError(f"has the answer {answer!r}, which is none of its labels {labels!r}")
    return names.index(_label(answer))


def _label(value) -> str:
    whole = whole_number(value)
    return str(value if whole is None else whole).strip()


def moves(choices: list[str]) -> bool:
    """Whether the options may change places: none of them speaks of the others."""
    return not (_OF_OTHERS.match(choices[-1]) or any(map(_OF_LETTERS.search, choices)))


def shuffle_choices(rows: Dataset, seed: int) -> Dataset:
    """``rows`` with the options of each in an order that ``seed`` and a hash of its question decide."""

    def shuffled(row: dict) -> dict:
        choices = list(row["choices"])
        if moves(choices):
            digest = blake2b(row["question"].encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
            Random(f"{seed}-{digest}").shuffle(choices)
        return {"choices": choices}

    return rows.map(shuffled)


def with_shots(rows: Dataset, solved: Dataset, count: int, seed: int) -> Dataset:
    """``rows`` with the column shots: ``count`` rows of ``solved`` of the same subject, in their order there.

    Which ones, ``seed`` and the row's place decide. Raises `UserError` where a subject has too few.
    """
    of_subject = defaultdict(list)
    for row in solved:
        of_subject[row["subject"]].append({name: row[name] for name in ("question", "choices", "gold")})

    def add(row: dict, index: int) -> dict:
        known = of_subject[row["subject"]]
        if len(known) < count:
            subject = f" of the subject {row['subject']!r}" if row["subject"] else ""
            raise UserError(f"--num_shots={count}: there are {len(known)} solved questions{subject}; use fewer.")
        chosen = sorted(Random(f"{seed}-{index}").sample(range(len(known)), count))
        return {"shots": [known[place] for place in chosen]}

    return rows.map(add, with_indices=True)


def all_rotations(rows: Dataset) -> Dataset:
    """Every row once per rotation of its options, in columns question_id (row of ``rows``) and rotation.

    Options that speak of others keep their place: such a row has one rotation.
    """
    turned = []
    for number, row in enumerate(rows):
        choices = row["choices"]
        for rotation in range(len(choices) if moves(choices) else 1):
            order = choices[rotation:] + choices[:rotation]
            turned.append({**row, "choices": order, "question_id": number, "rotation": rotation})
    return Dataset.from_list(turned)
