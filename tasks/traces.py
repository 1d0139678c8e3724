"""Traces of supervised training: rows of a file, checked and brought to TRL's form of prompt and completion."""

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from common.errors import UserError
from tasks.load import exact_number, load_rows, row_place

PAIRS = (("prompt", "completion"), ("question", "answer"))
_MESSAGES, _SPLIT = "messages", "split"
TEST = "test"


def load_traces(data: str, split: str) -> Dataset:
    """Rows with the columns prompt and completion, both texts or both conversations, the same in all rows.

    Takes prompt and completion, question and answer, or messages whose last is the assistant's; a number stands for its
    text. Raises `UserError` for other columns, for a row that a column split calls one of a test set, and for the first
    row without a prompt or a completion, in which one is of another kind, or in which they are of another kind than in
    the row before.
    """
    rows = load_rows(data, split)
    names = set(rows.column_names)
    pair = next((pair for pair in PAIRS if set(pair) <= names), None)
    if _MESSAGES in names and pair != PAIRS[0]:
        columns = (_MESSAGES,)
    elif pair is not None:
        columns = pair
    else:
        raise UserError(
            f"--data={data!r} has the columns {', '.join(sorted(names))}; it needs prompt and completion, question "
            "and answer, or messages."
        )
    if _SPLIT in names and TEST in rows[_SPLIT]:
        raise UserError(
            f"--data: {row_place(data, split, rows[_SPLIT].index(TEST))} is of a test set by its column {_SPLIT}; "
            "run_eval.py reports those, so train on others."
        )
    traces, kind = [], None
    for index, row in enumerate(rows.select_columns(list(columns))):
        try:
            trace = _split(row[_MESSAGES]) if columns == (_MESSAGES,) else tuple(row[name] for name in columns)
            trace = tuple(_part(name, value) for name, value in zip(PAIRS[0], trace, strict=True))
            kinds = {kind, *map(type, trace)} - {None}
            if len(kinds) > 1:
                raise ValueError("mixes texts and conversations; write all prompts and completions in one way")
        except ValueError as error:
            raise UserError(f"--data: {row_place(data, split, index)} {error}, or leave the row out.") from None
        kind = kinds.pop()
        traces.append(dict(zip(PAIRS[0], trace, strict=True)))
    return Dataset.from_list(traces)


def _split(messages) -> tuple[list, list]:
    """A conversation as what comes before the assistant's last message, and that message."""
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        raise ValueError(f"has messages={_shown(messages)}, which is no conversation; give every row one")
    role = messages[-1].get("role")
    if role != "assistant":
        raise ValueError(f"ends with a message of {role!r}; end the conversation with the assistant's")
    return messages[:-1], messages[-1:]


def _part(name: str, value) -> str | list[dict]:
    """A prompt or completion as text or conversation; raises `ValueError` where it is neither, or says nothing."""
    number = exact_number(value)
    part = value if number is None else number
    is_conversation = isinstance(part, list) and all(map(_is_message, part))
    if not (part is None or isinstance(part, str) or is_conversation):
        raise ValueError(f"has {name}={_shown(part)}, which is neither a text nor a conversation of texts; mend it")
    texts = [part] if isinstance(part, str) else [message["content"] for message in part or []]
    if not any(text.strip() for text in texts):
        raise ValueError(f"has no {name}; give every row one")
    return part


def _is_message(value) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def _shown(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def fitting_traces(rows: Dataset, tokenizer: PreTrainedTokenizerBase, longest: int) -> Dataset:
    """The rows of at most ``longest`` tokens; prints how many were dropped. Raises `UserError` when none is left."""
    kept = rows.filter(lambda row: token_count(row, tokenizer) <= longest)
    if len(kept) < len(rows):
        print(f"dropped {len(rows) - len(kept)} of {len(rows)} traces longer than {longest} tokens", flush=True)
    if not len(kept):
        raise UserError(f"all {len(rows)} traces are longer than {longest} tokens; raise --max_length or shorten them.")
    return kept


def token_count(row: dict, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of a row's prompt and completion as the trainer sees them, its end token included."""
    if isinstance(row["prompt"], str):
        return len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) + 1
    return len(tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"])
