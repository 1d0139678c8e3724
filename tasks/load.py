"""Rows from the Hugging Face hub, a folder or a file, checked before anything is trained on them."""

import atexit
import csv
import glob
import logging
import os
import re
import tempfile
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, Value, load_dataset
from datasets import config as library_config
from datasets.exceptions import DatasetsError

from common.errors import UserError
from common.files import is_path

logger = logging.getLogger(__name__)

CACHE = "HF_DATASETS_CACHE"  # environment variable: the cache of data sets, which other things are kept in too
FILE_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}
SEPARATORS = {".csv": ",", ".tsv": "\t"}
LARGEST_EXACT = 2**53  # integers up to here are exact in a float


def load_rows(source: str | Path, split: str | None = None, config: str | None = None) -> Dataset:
    """The rows of ``source``: a jsonl, json, parquet, csv or tsv file, a folder of files, or a hub dataset's name.

    The cells of csv and tsv files are texts.

    Args:
        split: a split of a folder or hub dataset, slices such as "train[:100]" too; by default "train", or the only
            one. A file is one split, whatever its name; slices of it are "train[...]".
        config: the configuration of a hub dataset that has several, for example "main" of openai/gsm8k.

    Raises `UserError` when the source is missing, unreadable or empty, or the hub cannot be reached.
    """
    path = local_path(source)
    if path.exists():
        rows = _load_local(path, split)
    elif path.suffix.lower() in FILE_FORMATS or is_path(str(source)):
        raise UserError(
            f"{str(source)!r} is not a file or folder; check the path, or give the name of a hub dataset (owner/name)."
        )
    else:
        rows = _load_hub(str(source), split, config)
    if not len(rows):
        raise UserError(f"{str(source)!r} (split {split or 'train'}) has no rows; give a source with at least one.")
    return rows


def local_path(source: str | Path) -> Path:
    """``source`` as a path, with the home folder for ~; raises `UserError` where the system cannot look for it."""
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(source)[:80]!r} cannot be looked for ({reason}); check the path.") from None
    return path


def folder_file(source: str, split: str | None, part: str = "") -> str | None:
    """``<part>_<split>.jsonl`` or ``<split>.jsonl`` in the folder ``source``; None where it holds neither."""
    folder, split = local_path(source), split or "train"
    names = [f"{part}_{split}.jsonl"] if part else []
    return next((str(folder / name) for name in [*names, f"{split}.jsonl"] if (folder / name).is_file()), None)


def refuse_test_sets(options: Any, *others: str) -> None:
    """Raise `UserError` where a run would train on, or choose its best policy by, rows that run_eval.py reports.

    Looked at are the splits ``options`` names in split and eval_split, each of a sum such as train+test, and the files
    in data and eval_data: whether their name begins or ends with the word test, as challenge_test does, or with one of
    ``others``. The split all is the sum of all.
    """
    words = {"test", *others}
    for flag in ("split", "eval_split", "data", "eval_data"):
        value = getattr(options, flag, "")
        path = Path(value)
        is_file = path.suffix.lower() in FILE_FORMATS
        if flag.endswith("data") and not is_file:
            continue
        names = [path.stem] if is_file else [part.partition("[")[0].strip() for part in value.split("+")]
        if value == "all" or any(_is_test_set(name.lower(), words) for name in names):
            rename = "; rename the file if it is no test set" if is_file else ""
            raise UserError(
                f"--{flag}={value!r}: run_eval.py reports test rows, so they neither train a policy nor choose the "
                f"best one; use others{rename}."
            )


def _is_test_set(name: str, words: set[str]) -> bool:
    parts = re.split(r"[^a-z0-9]+", name)
    return bool({name, parts[0], parts[-1]} & words)


def require_columns(dataset: Dataset, columns: Sequence[str | tuple[str, ...]]) -> list[str]:
    """What each of ``columns`` is called in ``dataset``; of one with several names the first that is there counts.

    Raises `UserError`, naming the columns found, when one is missing.
    """
    known = [column if isinstance(column, tuple) else (column,) for column in columns]
    found = [next((name for name in names if name in dataset.column_names), None) for names in known]
    missing = [" or ".join(names) for names, name in zip(known, found, strict=True) if name is None]
    if missing:
        raise UserError(
            f"the dataset lacks the column(s) {', '.join(missing)}; it has {', '.join(dataset.column_names)}: "
            "rename its columns or give another dataset."
        )
    return [name for name in found if name is not None]


def row_place(source: str | Path, split: str | None, index: int) -> str:
    """Where the row ``index``, counted from 0, of ``load_rows(source, split)`` stands, for a message.

    Names the line of a jsonl file too, counted from 1, and the split where it is not a whole file.
    """
    line = _line_of(local_path(source), index) if not split or "[" not in split else None
    if line is not None:
        where = f"line {line}, "
    else:
        where = f"split {split}, " if split and (not local_path(source).is_file() or "[" in split) else ""
    return f"row {index} of {str(source)!r} ({where}rows counted from 0)"


def _line_of(path: Path, index: int) -> int | None:
    """The line of a jsonl file that holds the row ``index``, blank lines holding none; None for other sources."""
    if not path.is_file() or path.suffix.lower() != ".jsonl":
        return None
    with path.open("rb") as file:
        rows = (number for number, line in enumerate(file, start=1) if line.strip())
        return next(islice(rows, index, None), None)


def whole_number(value) -> int | None:
    """``value`` as int if it is a whole number, else None (a column that mixes 3 and 2.5 is loaded as 3.0 and 2.5).

    A float beyond `LARGEST_EXACT` is none: it may stand for several integers.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_EXACT:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def exact_number(value) -> str | None:
    """The shortest decimal of a number; None for what is no number, or no exact one (see `whole_number`)."""
    whole = whole_number(value)
    if whole is not None:
        return str(whole)
    return str(value) if isinstance(value, float) and isfinite(value) and not value.is_integer() else None


def _refuse_folder_of_cells(folder: Path) -> None:
    """Raise `UserError` for a folder of csv or tsv files, whose cells the library would guess the types of."""
    found = next((path for path in sorted(folder.iterdir()) if path.suffix.lower() in SEPARATORS), None)
    if found is not None:
        raise UserError(f"{str(folder)!r} is a folder of {found.suffix} files; give the file itself, such as {found}.")


def _as_texts(path: Path, separator: str) -> dict:
    """Arguments of `load_dataset` with which every cell stays the text that stands in the file: 007 is no 7."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            rows = csv.reader(file, delimiter=separator)
            columns = next(rows, [])
            wrong = next((row for row in rows if len(row) > len(columns)), None)
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{str(path)!r} cannot be read as rows ({error}); save it as UTF-8.") from error
    if wrong is not None:
        raise UserError(
            f"{str(path)!r} has {len(columns)} columns, and in line {rows.line_num} a row of {len(wrong)} cells "
            f"({separator.join(wrong)[:80]!r}); put cells with {separator!r} in them in quotes."
        )
    if len({*columns, ""}) <= len(columns):
        raise UserError(
            f"{str(path)!r} has the columns {', '.join(map(repr, columns))}; each needs a name of its own (pandas "
            "leaves out its index with to_csv(index=False))."
        )
    features = Features({column: Value("string") for column in columns})
    return {"sep": separator, "keep_default_na": False, "features": features}


def _refuse_rows_of_nothing(path: Path) -> None:
    """Raise `UserError` for a json or jsonl file whose rows begin with no object, before the library reads it.

    A null where it looks for the columns of a block, in whose place a null line may come to stand, ends the process.
    """
    with path.open("rb") as file:
        lines = ((number, line.strip()) for number, line in enumerate(file, start=1) if line.strip())
        number, first = next(lines, (1, b"{"))
        start = first.removeprefix(BOM_UTF8)
        if start == b"[":  # a list over several lines
            start += next(lines, (0, b""))[1]
        wrong = None if re.match(rb"\{|\[(?!\s*null)", start) else (number, start)
        if wrong is None and path.suffix.lower() == ".jsonl":
            wrong = next((found for found in lines if found[1] == b"null"), None)
    if wrong is not None:
        number, start = wrong
        raise UserError(
            f"{str(path)!r} cannot be read as rows (line {number} is {start[:40].decode(errors='replace')!r}, and no "
            "JSON object begins there); check its contents and its encoding (UTF-8)."
        )


def _load_local(path: Path, split: str | None) -> Dataset:
    for file in path.rglob("*.json*") if path.is_dir() else [path]:
        if FILE_FORMATS.get(file.suffix.lower()) == "json" and file.is_file():
            _refuse_rows_of_nothing(file)
    if path.is_dir():
        _refuse_folder_of_cells(path)
        arguments = {"path": str(path.resolve())}
    elif path.suffix.lower() not in FILE_FORMATS:
        raise UserError(f"{str(path)!r} is not one of {', '.join(FILE_FORMATS)}; convert it to one of them.")
    elif not path.stat().st_size:
        raise UserError(f"{str(path)!r} has no rows, it is an empty file; give a source with at least one.")
    else:
        ending = path.suffix.lower()
        arguments = {"path": FILE_FORMATS[ending], "data_files": glob.escape(str(path))}
        if ending in SEPARATORS:
            arguments |= _as_texts(path, SEPARATORS[ending])
        split = split if split and "[" in split else None
    try:
        rows = _one_split(load_dataset(**arguments, split=split, cache_dir=cache_folder()), str(path))
        rows.data.validate(full=True)  # JSON in another encoding than UTF-8 is taken, and fails where a row is read
    except UserError:
        raise
    except (DatasetsError, ValueError, OSError, RecursionError) as error:
        reason = error.__cause__ or error
        raise UserError(
            f"{str(path)!r} cannot be read as rows ({reason}); check its contents, its encoding (UTF-8) and the split."
        ) from error
    return rows


@lru_cache
def cache_folder() -> str:
    """The library's cache of converted files; where it cannot be written, a folder that ends with the process.

    Which is said once, since every run then makes again what it would find there.
    """
    cache = Path(library_config.HF_DATASETS_CACHE)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache).close()
    except OSError as error:
        logger.warning(
            "the cache of data sets %s cannot be written (%s), so this run keeps nothing it converts or makes; set %s "
            "to a folder that can be",
            cache,
            error.strerror,
            CACHE,
        )
        temporary = tempfile.TemporaryDirectory(prefix="datasets-")
        atexit.register(temporary.cleanup)
        return temporary.name
    return str(cache)


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, filled by ``make`` where it is not there yet; nobody sees it half made, other processes included."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            make(Path(unfinished))
            try:
                os.rename(unfinished, folder)
                os.mkdir(unfinished)  # which the end of the block removes
            except OSError:
                if not folder.is_dir():  # else another process was faster, and made the same
                    raise
    return folder


def _load_hub(name: str, split: str | None, config: str | None) -> Dataset:
    try:
        loaded = load_dataset(name, name=config, split=split)
    except (DatasetsError, OSError) as error:
        raise UserError(
            f"{name!r} is neither a local file or folder nor a dataset the hub gives out now ({error}); give the path "
            "of a jsonl, parquet or csv file, or check the name and connection (HF_HUB_OFFLINE unset) and try again."
        ) from error
    except ValueError as error:
        raise UserError(
            f"hub dataset {name!r} cannot be loaded ({error}); name one of its configs and splits."
        ) from error
    return _one_split(loaded, name)


def _one_split(loaded: Dataset | DatasetDict, source: str) -> Dataset:
    """The split asked for, else "train", else the only one."""
    if isinstance(loaded, Dataset):
        return loaded
    if "train" not in loaded and len(loaded) > 1:
        raise UserError(f"{source!r} has the splits {', '.join(loaded)} and no 'train'; name one of them.")
    return loaded["train"] if "train" in loaded else next(iter(loaded.values()))
