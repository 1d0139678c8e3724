"""Rows of text-to-SQL: Spider, BIRD, and files shaped like them, with the databases that they are asked of.

Every row has the columns id, db (name of the database), question, evidence (a hint of the source, or ""), gold (a
query), ordered, tied, cut, rows and columns (see `tasks.sql.golds.Gold`), databases (paths of the files that it is
judged on, that of ``db`` first) and tie_groups (one list per file).
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets import Dataset, Features, Value
from datasets import Sequence as ListOf

from common.errors import UserError
from tasks.load import load_rows, local_path, row_place
from tasks.sql.golds import Gold
from tasks.sql.prepare import Prepared, prepare
from tasks.sql.schema import open_database

SPIDER, BIRD = "xlangai/spider", "birdsql/bird_mini_dev"
HUB_TEST = {SPIDER: "validation", BIRD: "mini_dev_sqlite"}  # the split that is reported
# What the files of a split are called, in the layouts of Spider and BIRD too; their development sets are the test sets.
_SPLIT_FILES = {
    "train": ("train.jsonl", "train_spider.json", "train.json", "train/train.json"),
    "test": ("test.jsonl", "dev.json", "dev/dev.json", "dev_20240627/dev.json"),
}
_DATABASE_FOLDERS = ("databases", "database", "train_databases", "dev_databases", "test_database")
_GOLD_COLUMNS = ("query", "SQL", "sql", "gold")
FEATURES = Features(
    {
        **{name: Value("string") for name in ("id", "db", "question", "evidence", "gold")},
        **{name: Value("bool") for name in ("ordered", "tied", "cut")},
        **{name: Value("int64") for name in ("rows", "columns")},
        "databases": ListOf(Value("string")),
        "tie_groups": ListOf(ListOf(Value("int64"))),
    }
)


def load_sql(
    source: str,
    split: str,
    databases: str = "",
    num_hidden: int = 3,
    skip_bad_golds: bool = False,
    use_suite: bool = False,
) -> Dataset:
    """Rows of a file, a folder in our, Spider's or BIRD's layout, or a hub data set.

    Args:
        databases: folder with ``<db>.sqlite`` or ``<db>/<db>.sqlite``; "" looks beside the file of the rows.
        num_hidden: hidden databases made for each database.
        skip_bad_golds: leave golds that cannot judge out, and say so, instead of raising.
        use_suite: judge on the files of ``suite/<db>/`` beside the databases, or on the other files in the folder of a
            database, where there are any, in place of made ones.

    Raises `UserError`, with the row, where a question or query is no text, a database is not there, or a gold fails,
    exceeds a limit or reads the clock.
    """
    place = split_file(source, split)
    folders = _database_folders(source, databases, place)
    rows = _read(place or source, HUB_TEST.get(source, split) if split == "test" else split)
    by_database: dict[str, list[dict]] = defaultdict(list)
    for index, row in enumerate(rows):
        try:
            built = _row(row, index)
            by_database[built["db"]].append(built | {"place": row_place(place or source, split, index)})
        except ValueError as error:
            where = row_place(place or source, split, index)
            raise UserError(f"{where} {error}; mend or remove the row.") from None
    found = {db: find_database(db, folders) for db in by_database}
    kept, skipped, unmade = [], 0, []
    for db, of_database in by_database.items():
        suite = _suite(found[db]) if use_suite else []
        open_database(found[db]).close()
        prepared = prepare(found[db], [row["gold"] for row in of_database], num_hidden, suite)
        if num_hidden and not prepared.hidden:
            unmade.append(db)
        for row in of_database:
            gold = prepared.golds[row["gold"]]
            if not gold.problem:
                kept.append(_judged(row, found[db], prepared, gold))
            elif skip_bad_golds:
                skipped += 1
            else:
                raise UserError(
                    f"{row['place']}: the gold of question {row['id']} on {db} {gold.problem}; mend or remove the row, "
                    "or leave such rows out with --skip_bad_golds."
                )
    if skipped:
        print(f"{skipped} of {len(rows)} questions left out: their gold fails, exceeds a limit or reads the clock")
    if not kept:
        raise UserError(f"none of the {len(rows)} golds of {source!r} can judge; check --databases={databases!r}.")
    if unmade:
        print(
            f"{len(unmade)} of {len(found)} databases have no hidden ones, since SQLite cannot make their tables again "
            f"({', '.join(unmade)}); their questions are judged on one database"
        )
    unhidden = sum(len(row["databases"]) == 1 and row["db"] not in unmade for row in kept)
    if unhidden and num_hidden:
        print(f"{unhidden} of {len(kept)} questions are judged on one database: their gold is determined on no other")
    return Dataset.from_list(kept, features=FEATURES)


def split_file(source: str, split: str) -> Path | None:
    """The file of ``split`` in the folder ``source``, or ``source`` where it is a file; None for a hub name.

    Raises `UserError` where a folder has none.
    """
    path = local_path(source)
    if not path.is_dir():
        return path if path.is_file() else None
    names = [f"{split}.jsonl", f"{split}.json", f"{split}/{split}.json", *_SPLIT_FILES.get(split, ())]
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise UserError(f"{source!r} has no file of the split {split!r}; it would be one of {', '.join(names)}.")
    return found


def _read(source: Path | str, split: str) -> list[dict]:
    """The rows as they are. JSON is read here: a column of Spider's own files holds values of many types."""
    path = Path(source)
    if not (path.is_file() and path.suffix.lower() in (".json", ".jsonl")):
        return list(load_rows(str(source), split))
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [line for line in text.split("\n") if line.strip()]  # a text in JSON may hold other ends of lines
        rows = json.loads(text) if path.suffix.lower() == ".json" else [json.loads(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is not JSON ({error}); mend it.") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{str(path)!r} holds no list of rows; give objects with db_id, question and query.")
    return rows


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _row(row: dict, index: int) -> dict:
    named = {
        "db": row.get("db_id", row.get("db")),
        "question": row.get("question"),
        "gold": next((row[name] for name in _GOLD_COLUMNS if isinstance(row.get(name), str)), None),
    }
    for name, value in named.items():
        if not isinstance(value, str) or not value.strip() or _has_surrogates(value):
            raise ValueError(f"has the {name} {value!r}, which is no text")
    if not all(part.isalnum() or part in " _-.'()" for part in named["db"]) or named["db"].startswith("."):
        raise ValueError(f"has the database {named['db']!r}, which is no name of a file")
    others = {"id": str(row.get("id", row.get("question_id", index))), "evidence": row.get("evidence") or ""}
    for name, value in others.items():
        if not isinstance(value, str) or _has_surrogates(value):
            raise ValueError(f"has the {name} {value!r}, which is no text")
    return {**others, **named}


def _judged(row: dict, path: Path, prepared: Prepared, gold: Gold) -> dict:
    judges = [(str(path), gold.tie_groups), *prepared.judges[row["gold"]]]
    return {
        **{name: row[name] for name in ("id", "db", "question", "evidence", "gold")},
        **{name: getattr(gold, name) for name in ("ordered", "tied", "cut", "rows", "columns")},
        "databases": [file for file, _ in judges],
        "tie_groups": [groups for _, groups in judges],
    }


def _database_folders(source: str, databases: str, place: Path | None) -> list[Path]:
    if databases:
        folder = local_path(databases)
        if not folder.is_dir():
            raise UserError(f"--databases={databases!r} is no folder; give the one that holds <db>.sqlite files.")
        return [folder]
    if place is None:
        raise UserError(
            f"{source!r} is no file or folder, and a hub data set has questions alone: check the path, or give the "
            "folder of the databases, <db>.sqlite or <db>/<db>.sqlite, with --databases."
        )
    return [place.parent / name for name in _DATABASE_FOLDERS if (place.parent / name).is_dir()]


def find_database(db: str, folders: Sequence[Path]) -> Path:
    """The file of the database ``db``. Raises `UserError` where no folder has it."""
    files = [file for folder in folders for file in (folder / f"{db}.sqlite", folder / db / f"{db}.sqlite")]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        looked = ", ".join(map(str, folders)) or "no folder called databases or database"
        raise UserError(
            f"the database {db!r} has no file {db}.sqlite or {db}/{db}.sqlite (looked in {looked}); give its folder "
            "with --databases."
        )
    return found


def _suite(path: Path) -> list[Path]:
    """The published files of other rows for the database ``path``."""
    places: Iterable[Path] = (path.parent.parent / "suite" / path.stem).glob("*.sqlite")
    if found := sorted(places):
        return found
    return (
        sorted(file for file in path.parent.glob("*.sqlite") if file != path) if path.parent.name == path.stem else []
    )
