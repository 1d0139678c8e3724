"""Text-to-SQL rows: layouts, golds and their ties, hidden databases, prompts, splits by database, bad input."""

import json
import sqlite3
from pathlib import Path
from random import Random

import pytest

from common.errors import UserError
from evaluation.evaluate import _votes_right, summarize_records
from tasks.sql import prepare, schema
from tasks.sql.clauses import compared_literals, sorted_query
from tasks.sql.golds import examine
from tasks.sql.hidden import Source
from tasks.sql.options import SqlOptions, load_problems
from tasks.sql.problems import load_sql
from tasks.sql.prompts import add_prompts, schema_text
from tasks.sql.schema import ORDERS, shuffled_copy

SHOP = """
CREATE TABLE item (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, kind TEXT, price REAL, stock INTEGER);
CREATE TABLE sale (id INTEGER PRIMARY KEY, item INTEGER REFERENCES item(id), city TEXT, amount INTEGER);
INSERT INTO item VALUES (1,'lamp','light',20.0,3),(2,'chair','seat',35.5,7),(3,'stool','seat',15.0,7),
    (4,'torch','light',20.0,NULL),(5,'sofa','seat',250.0,1);
INSERT INTO sale VALUES (1,1,'Oslo',2),(2,2,'Oslo',1),(3,2,'Rome',4),(4,4,'Rome',1),(5,1,'Lima',2);
"""
# Enough rows that only some keys are kept, and two tables that refer to each other.
CIRCLE = """
CREATE TABLE dept (id INTEGER PRIMARY KEY, head INTEGER NOT NULL REFERENCES staff(id));
CREATE TABLE staff (id INTEGER PRIMARY KEY, dept INTEGER NOT NULL REFERENCES dept(id));
WITH RECURSIVE c(x) AS (SELECT 10 UNION ALL SELECT x + 1 FROM c WHERE x < 49)
    INSERT INTO item SELECT x, 'item ' || x, 'kind', x, x FROM c;
INSERT INTO sale SELECT id, id, 'Oslo', 1 FROM item WHERE id > 9;
INSERT INTO dept SELECT id, id FROM item;
INSERT INTO staff SELECT id, id FROM item;
"""
GOLDS = [
    "SELECT COUNT(*) FROM item",
    "SELECT name FROM item WHERE price < 30",
    "SELECT city FROM sale WHERE city LIKE 'O%'",
    "SELECT name FROM item ORDER BY stock DESC LIMIT 1",
    "SELECT name FROM item WHERE kind = 'bed'",
]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(prepare, "cache_folder", lambda: str(tmp_path / "cache"))


def database(path, script=SHOP):
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    return path


@pytest.fixture
def shop(tmp_path):
    return database(tmp_path / "shop.sqlite")


def rows_of(db: str, golds=GOLDS) -> list[dict]:
    return [{"db": db, "question": f"{db}, question {index}?", "sql": gold} for index, gold in enumerate(golds)]


@pytest.fixture
def folder(tmp_path):
    """Training questions on three databases, in our layout."""
    place = tmp_path / "data"
    for db in ("a", "b", "c"):
        database(place / "databases" / f"{db}.sqlite")
    lines = [json.dumps(row) for db in ("a", "b", "c") for row in rows_of(db)]
    (place / "train.jsonl").write_text("\n".join(lines))
    return place


@pytest.mark.parametrize(
    ("gold", "groups", "tied", "cut"),
    [
        ("SELECT name FROM item ORDER BY price DESC", [1, 1, 2, 1], True, False),
        ("SELECT name FROM item ORDER BY stock DESC LIMIT 1", [1], False, True),
        ("SELECT name FROM item ORDER BY stock DESC LIMIT 2", [2], True, False),
        ("SELECT name FROM item ORDER BY stock LIMIT 1", [1], False, False),
        ("SELECT kind FROM item GROUP BY kind ORDER BY COUNT(*) DESC LIMIT 1", [1], False, False),
        ("SELECT name, price AS p FROM item ORDER BY p, 1 DESC", [1, 1, 1, 1, 1], False, False),
        ("SELECT name FROM item ORDER BY price DESC LIMIT 2, 2", [2], True, False),
        ("SELECT DISTINCT kind FROM item ORDER BY kind", [1, 1], False, False),
        ("SELECT name FROM item UNION SELECT city FROM sale ORDER BY name DESC LIMIT 3", [1, 1, 1], False, False),
        ("SELECT name FROM item WHERE id IN (SELECT id FROM item ORDER BY stock DESC LIMIT 1)", [], False, True),
        ("SELECT name FROM item LIMIT 2", [], False, True),
        ("SELECT name FROM item", [], False, False),
        ("SELECT DISTINCT name FROM item ORDER BY price DESC", [1, 1, 2, 1], True, False),
        ("SELECT name FROM item ORDER BY kind COLLATE NOCASE, stock", [1, 1, 1, 2], True, False),
        ("SELECT name, price p FROM item ORDER BY p -- cheap first", [1, 2, 1, 1], True, False),
        ('SELECT name AS x, price AS "name" FROM item ORDER BY "name"', [1, 2, 1, 1], True, False),
        ("WITH t AS (SELECT * FROM item) SELECT name FROM t ORDER BY price LIMIT 2", [1, 1], False, True),
    ],
)
def test_ties_are_found_by_sort_keys_and_by_shuffled_copies(gold, groups, tied, cut, shop, tmp_path):
    copies = [tmp_path / f"copy{number}.sqlite" for number in range(len(ORDERS))]
    for copy, order in zip(copies, ORDERS, strict=True):
        shuffled_copy(shop, copy, order)
    found = examine(str(shop), list(map(str, copies)), gold)
    assert (found.problem, found.tie_groups, found.tied, found.cut) == ("", groups, tied, cut)


def test_the_text_of_a_gold_tells_keys_and_literals():
    found = sorted_query("SELECT a, b AS n FROM t ORDER BY n DESC, lower(a) LIMIT 3 OFFSET 1;")
    assert (found.keyed, found.keys) == ("SELECT a, b AS n, lower(a) FROM t ORDER BY n DESC, lower(a) ", [1, -1])
    assert (found.limit, found.offset) == (3, 1)
    assert sorted_query("SELECT (SELECT a FROM t ORDER BY a) FROM t") is None
    assert sorted_query("SELECT a FROM t ORDER BY a COLLATE NOCASE").keyed is None
    shadowed = sorted_query("SELECT a AS x, lower(b) AS 'a', t.c d FROM t ORDER BY a, \"d\", b -- by LIMIT 3")
    assert (shadowed.keys, shadowed.limit) == ([1, 2, -1], None)
    assert sorted_query("SELECT x OR b, NOT b FROM t ORDER BY b").keys == [-1], "a word behind an operator is no alias"
    queries = [
        "SELECT 1 WHERE T1.Price >= -2.5 AND `my col` = 'it''s' OR x BETWEEN 1 AND 3",
        'x NOT LIKE "a%" y IN (4, 5)',
    ]
    assert compared_literals(queries) == {"price": [-2.5], "my col": ["it's"], "x": [1, 3, "a%"], "y": [4, 5]}


def test_hidden_databases_keep_foreign_keys_differ_and_depend_on_their_seed_alone(tmp_path):
    shop = database(tmp_path / "shop.sqlite", SHOP + CIRCLE)
    source, dumps = Source(shop, GOLDS), []
    for number, seed in enumerate(["x", "x", "y"]):
        source.write(tmp_path / f"{number}.sqlite", seed)
        with sqlite3.connect(tmp_path / f"{number}.sqlite") as connection:
            assert not connection.execute("PRAGMA foreign_key_check").fetchall()
            sizes = [connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in ("item", "sale")]
            assert min(sizes) >= 20, "half of 40, none lost to a key that is not there"
            dumps.append(list(connection.iterdump()))
        connection.close()
    assert dumps[0] == dumps[1] != dumps[2]
    prices = source._domain("price", source.rows["item"], Random(0))
    assert {29, 30, 31} <= set(prices) and {"O", "Ox", "OZq "} <= set(source._domain("city", [], Random(0)))


def test_rows_have_their_golds_looked_at_and_the_databases_that_judge_them(folder, tmp_path, capsys):
    rows = load_sql(str(folder), "train", num_hidden=2)
    first = rows[0]
    assert len(rows) == 15 and first["databases"][0] == str(folder / "databases" / "a.sqlite")
    assert len(first["databases"]) == len(first["tie_groups"]) == 3
    assert all(row["cut"] == ("LIMIT" in row["gold"]) for row in rows)
    assert {row["rows"] for row in rows if "bed" in row["gold"]} == {0}
    made = sorted((tmp_path / "cache" / "sql").iterdir())
    assert rows[:] == load_sql(str(folder), "train", num_hidden=2)[:] and made == sorted(
        (tmp_path / "cache/sql").iterdir()
    )


def stopped_by(statements):
    """A function that writes a database, which ends in SQLite's own error at one of ``statements``."""

    def write(*arguments):
        path = next(argument for argument in arguments[::-1] if isinstance(argument, Path))
        connection = sqlite3.connect(path)
        connection.executescript(statements)

    return write


FULL_DISK = "PRAGMA max_page_count = 1; CREATE TABLE a (x); CREATE TABLE b (x)"


@pytest.mark.parametrize(
    ("place", "name", "variable"), [(Source, "write", "HF_DATASETS_CACHE"), (schema, "shuffled_copy", "TMPDIR")]
)
def test_a_full_disk_ends_in_one_sentence_and_weakens_no_later_run(place, name, variable, folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(place, name, stopped_by(FULL_DISK))
        with pytest.raises(UserError, match=f"databases cannot be made in .*disk is full.*make room there.*{variable}"):
            load_sql(str(folder), "train", num_hidden=2)
    assert len(load_sql(str(folder), "train", num_hidden=2)[0]["databases"]) == 3


def test_databases_whose_tables_cannot_be_made_again_are_said(folder, monkeypatch, capsys):
    monkeypatch.setattr(Source, "write", stopped_by("CREATE VIRTUAL TABLE a USING no_such_module"))
    for _ in range(2):  # made, and kept
        assert set(map(len, load_sql(str(folder), "train", num_hidden=2)["databases"])) == {1}
        assert "3 of 3 databases have no hidden ones" in (said := capsys.readouterr().out)
        assert "(a, b, c); their questions are judged on one database" in said and "on no other" not in said


def test_spiders_and_birds_own_folders_are_read(tmp_path):
    spider = tmp_path / "spider"
    database(spider / "database" / "shop" / "shop.sqlite")
    nested = {"from": {"conds": [1, "or", [2, "x"]]}}  # a column of many types, as in Spider's own files
    row = {"db_id": "shop", "question": "How many?", "query": GOLDS[0], "sql": nested}
    (spider / "train_spider.json").write_text(json.dumps([row, row | {"sql": {"from": None}}]))
    assert load_sql(str(spider), "train", num_hidden=0)["gold"] == [GOLDS[0]] * 2
    bird = tmp_path / "bird" / "dev"
    database(bird / "dev_databases" / "shop" / "shop.sqlite")
    row = {"question_id": 7, "db_id": "shop", "question": "How many?", "evidence": "count them", "SQL": GOLDS[0]}
    (bird / "dev.json").write_text(json.dumps([row]))
    (found,) = add_prompts(load_sql(str(bird.parent), "test", num_hidden=0), "reasoning")
    assert found["id"] == "7" and found["prompt"][1]["content"].endswith(
        ";\n-- item.name: 'lamp', 'chair'\n-- item.kind: "
        "'light', 'seat'\n-- sale.city: 'Oslo', 'Rome'\n\ncount them\nHow many?"
    )


def test_published_databases_of_other_rows_take_the_place_of_made_ones(folder):
    files = [database(folder / "suite" / "a" / f"{number}.sqlite") for number in (1, 2)]
    rows = load_sql(str(folder), "train", num_hidden=1, use_suite=True)
    assert rows[0]["databases"][1:] == list(map(str, files)) and len(rows[5]["databases"]) == 2


def test_a_schema_is_shown_as_it_is_stored(shop):
    assert schema_text(str(shop), 0).startswith(
        "CREATE TABLE item (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT"
    )
    (row,) = add_prompts(load_sql_one(shop), "plain")
    assert row["prompt"].endswith("\n\nHow many?\nSQL:") and row["continues_sql"]


def load_sql_one(shop):
    (shop.parent / "one.jsonl").write_text(json.dumps({"db": "shop", "question": "How many?", "sql": GOLDS[0]}))
    return load_sql(str(shop.parent / "one.jsonl"), "train", str(shop.parent), num_hidden=0)


def test_validation_takes_whole_databases_and_training_what_can_be_learnt(folder, capsys):
    train, validation = load_problems(SqlOptions(data=str(folder), hidden_databases=0), 4, True, 0)
    assert len(set(validation["db"])) == 1 and not set(validation["db"]) & set(train["db"])
    assert len(validation) == 4 and len(train) == 2 * 3
    assert "left out of training: 2 of 10 questions whose gold determines no answer" in capsys.readouterr().out
    other, _ = load_problems(SqlOptions(data=str(folder), hidden_databases=0, train_problems=2), 4, False, 1)
    assert len(other) == 2
    (folder / "validation.jsonl").write_text(json.dumps(rows_of("b")[0]))
    train, validation = load_problems(SqlOptions(data=str(folder), hidden_databases=0), 4, True, 0)
    assert validation["db"] == ["b"] and set(train["db"]) == {"a", "c"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"split": "test"}, "--split='test': run_eval.py reports test rows"),
        ({"eval_split": "dev"}, "--eval_split='dev': run_eval.py reports test rows"),
        (
            {"data": "xlangai/spider", "eval_split": "validation"},
            "--eval_split='validation': run_eval.py reports test rows",
        ),
        ({"data": "spider/dev.json"}, "--data='spider/dev.json': run_eval.py reports test rows"),
        ({"hidden_databases": -1}, "--hidden_databases=-1 must be at least 0"),
        ({"reward": "r1"}, "--reward='r1' is unknown; use one of results, sql_r1"),
        ({"reward": "sql_r1", "prompt_type": "plain"}, "--reward=sql_r1 pays for tags"),
        ({"prompt_type": "fenced"}, "--prompt_type='fenced' does not go with SQL"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags, message):
    with pytest.raises(UserError, match=message):
        SqlOptions(**flags)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sql": "SELECT x FROM item"},
            r"row 0 .*line 1.*gold of question 0 on a gives error: no such column: x; .*--skip_bad",
        ),
        ({"sql": "SELECT date('now')"}, "reads the clock"),
        ({"sql": "SELECT COUNT(*) FROM " + ", ".join(f"sale s{n}" for n in range(15))}, "gives timeout"),
        ({"sql": ""}, "has the gold '', which is no text"),
        ({"question": 3}, "has the question 3, which is no text"),
        ({"db": "../a"}, "has the database '../a', which is no name of a file"),
        ({"id": "\ud800"}, r"has the id '.ud800', which is no text"),
        ({"evidence": "\ud800"}, r"has the evidence '.ud800', which is no text"),
        ({"evidence": ["x"]}, "has the evidence .'x'., which is no text"),
        ({"db": "z"}, r"the database 'z' has no file z.sqlite or z/z.sqlite .*--databases"),
    ],
)
def test_a_bad_row_is_named(change, message, folder):
    (folder / "train.jsonl").write_text(json.dumps(rows_of("a")[0] | change))
    with pytest.raises(UserError, match=message):
        load_sql(str(folder), "train", num_hidden=0)


def test_marks_of_utf_8_and_ends_of_lines_inside_texts_are_read(folder):
    rows = [rows_of("a")[0] | {"question": f"a{end}b"} for end in "\u2028\u0085\x1c"]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "train.jsonl").write_text("\ufeff" + lines, encoding="utf-8")
    found = load_sql(str(folder), "train", num_hidden=0)
    assert found["question"][:] == [row["question"] for row in rows]


def test_numbers_beyond_sqlites_integers_end_nothing(folder):
    script = f"{SHOP}UPDATE item SET stock = {2**63 - 1} WHERE id < 4;"
    (folder / "databases" / "a.sqlite").unlink()
    database(folder / "databases" / "a.sqlite", script)
    largest = [str(2**63 - 1), "9" * 23, "9" * 5000]
    golds = [f"SELECT name FROM item WHERE stock < {number}" for number in largest]
    golds.append(f"SELECT name FROM item ORDER BY {10**12}")
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows_of("a", golds))))
    assert len(load_sql(str(folder), "train", num_hidden=2)) == 4


def test_bad_golds_are_left_out_when_asked_and_said(folder, capsys):
    lines = [rows_of("a")[0], rows_of("a")[1] | {"sql": "SELECT x"}]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert len(load_sql(str(folder), "train", num_hidden=0, skip_bad_golds=True)) == 1
    assert "1 of 2 questions left out" in capsys.readouterr().out
    (folder / "train.jsonl").write_text(json.dumps(lines[1]))
    with pytest.raises(UserError, match="none of the 1 golds"):
        load_sql(str(folder), "train", num_hidden=0, skip_bad_golds=True)


def test_bad_files_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="has no file of the split 'valid'"):
        load_sql(str(folder), "valid")
    with pytest.raises(
        UserError, match="'nowhere/spider' is no file or folder, and a hub data set .* with --databases"
    ):
        load_sql("nowhere/spider", "train")
    with pytest.raises(UserError, match="--databases='nowhere' is no folder"):
        load_sql(str(folder), "train", "nowhere")
    (folder / "databases" / "a.sqlite-wal").write_bytes(b"x")
    with pytest.raises(UserError, match=r"a.sqlite' is locked.*a.sqlite-wal holds what it lacks"):
        load_sql(str(folder), "train", num_hidden=0)
    (folder / "databases" / "a.sqlite-wal").unlink()
    (folder / "databases" / "a.sqlite").write_bytes(b"no database" * 99)
    with pytest.raises(UserError, match=r"a.sqlite' cannot be read \(file is not a database\)"):
        load_sql(str(folder), "train", num_hidden=0)
    (folder / "train.jsonl").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        load_sql(str(folder), "train")


def record(identity: int, verdict: str, same_set: bool, cut: bool = False) -> dict:
    right = verdict == "correct"
    tiers = {"strict": right, "medium": right, "loose": same_set, "same_set": same_set, "well_formed": True}
    size = {"rows": 1, "length": 1, "truncated": False}
    return {"id": identity, "sample": 0, "answer": "r", "verdict": verdict, "cut": cut, **tiers, **size}


def test_the_report_tells_execution_accuracy_from_that_on_hidden_databases():
    records = [record(0, "correct", True), record(1, "accidental", True), record(2, "wrong", True, cut=True)]
    metrics = summarize_records(records)
    means = {name: metrics[name]["mean"] for name in ("execution_accuracy", "suite_accuracy", "accidental", "medium")}
    assert means == {"execution_accuracy": 1, "suite_accuracy": 1 / 3, "accidental": 1 / 3, "medium": 1 / 3}
    assert metrics["execution_minus_suite"] == pytest.approx(2 / 3)
    assert metrics["suite_accuracy/determined"]["mean"] == metrics["execution_minus_suite/determined"] == 0.5
    assert [_votes_right(one) for one in records] == [True, False, False], "no vote for what is right by accident"
