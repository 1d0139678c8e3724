"""SQL grader: labelled cases, golds against themselves, hostile queries, and what is left of their process."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from common.errors import RunError, UserError
from rewards.sql import runner as runners
from rewards.sql.grader import CONTINUES, ExecutesReward, SqlR1Reward, SqlReward, grade_sql
from rewards.sql.runner import Runner, runner
from tasks.sql.golds import examine
from tasks.sql.problems import load_sql
from tests.processes import ROOT

DATA = ROOT.parent / "shared" / "data"
SCRIPT = """
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, kind TEXT, price REAL, stock INTEGER);
INSERT INTO item VALUES (1,'lamp','light',20.0,3),(2,'chair','seat',35.5,7),(3,'stool','seat',15.0,7),
    (4,'torch','light',20.0,NULL),(5,'sofa','seat',250.0,1);
"""
OTHER = SCRIPT.split("INSERT")[0] + "INSERT INTO item VALUES (1,'lamp','light',9.0,3),(2,'rug','floor',12.5,1);"
HOSTILE = [
    "DELETE FROM item RETURNING name",
    "DROP TABLE item",
    "ATTACH '/tmp/stolen.sqlite' AS x",
    "VACUUM INTO '/tmp/stolen.sqlite'",
    "PRAGMA writable_schema = 1",
    "SELECT * FROM pragma_table_info('item')",
    "SELECT load_extension('x')",
    "SELECT randomblob(9)",
    "SELECT date('now')",
    "CREATE TEMP TABLE t AS SELECT 1",
    "BEGIN",
]


def made(path: Path, script: str) -> str:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    return str(path)


@pytest.fixture
def item(tmp_path):
    """Paths of two databases with one table each."""
    return [made(tmp_path / f"{number}.sqlite", script) for number, script in enumerate((SCRIPT, OTHER))]


def tagged(query: str) -> str:
    return f"<think>\nwork\n</think>\n<answer>\n{query}\n</answer>"


def row_of(gold: str, databases: list[str]) -> dict:
    return {
        "gold": gold,
        "databases": databases,
        "tie_groups": [examine(path, [], gold).tie_groups for path in databases],
    }


@pytest.mark.skipif(not (DATA / "sql_cases.jsonl").is_file(), reason="the cases are not at ../shared/data")
def test_the_labelled_cases_get_their_verdicts_and_tiers(tmp_path, monkeypatch):
    # The one case that only the limit on processor time ends would take its 4 seconds: here it is given one.
    quick = tmp_path / "worker.py"
    quick.write_text(runners.WORKER.read_text().replace("CPU_SECONDS = 4.0", "CPU_SECONDS = 1.0"))
    monkeypatch.setattr(runners, "WORKER", quick)
    monkeypatch.setattr(runners, "_runner", Runner())
    paths, wrong, number = {}, [], 0
    for line in (DATA / "sql_cases.jsonl").read_text().splitlines():
        case = json.loads(line)
        for script in (case["setup"], *case["hidden"]):
            if script not in paths:
                paths[script] = made(tmp_path / f"{len(paths)}.sqlite", script)
        row = row_of(case["gold"], [paths[script] for script in (case["setup"], *case["hidden"])])
        grade = grade_sql(case["input"], row)
        tiers = {tier: getattr(grade, tier) for tier in case["options"]}
        if grade.verdict not in (case["verdict"], *case.get("also", ())) or tiers != case["options"]:
            wrong.append((case["id"], grade))
        number += 1
    runner().close()
    assert not wrong and number == 50


@pytest.mark.skipif(not (DATA / "spider").is_dir(), reason="Spider is not at ../shared/data")
def test_a_sample_of_spiders_golds_is_right_by_itself_unless_cut():
    rows = load_sql(str(DATA / "spider"), "validation", num_hidden=1)
    judged = [(grade_sql(tagged(row["gold"]), row), row) for row in rows]
    assert len(judged) == 213
    assert {(grade.verdict, grade.strict) for grade, row in judged if not row["cut"]} == {("correct", True)}
    by_id = {json.loads(line)["id"]: json.loads(line) for line in (DATA / "spider/validation.jsonl").open()}
    for name in ("ordered", "cut", "rows", "columns"):
        assert all(row[name] == by_id[row["id"]][name] for row in rows), name


@pytest.mark.parametrize("query", HOSTILE)
def test_what_writes_opens_or_draws_lots_is_forbidden_and_changes_nothing(query, item):
    before = Path(item[0]).read_bytes()
    grade = grade_sql(tagged(query), row_of("SELECT name FROM item", item))
    assert (grade.medium, grade.loose, grade.answer, grade.verdict) == (False, False, None, "forbidden")
    assert Path(item[0]).read_bytes() == before and not Path("/tmp/stolen.sqlite").exists()


def test_a_query_that_is_right_by_accident_is_told_apart_by_the_hidden_database(item):
    row = row_of("SELECT COUNT(*) FROM item", item)
    grade = grade_sql(tagged("SELECT 5"), row)
    assert (grade.medium, grade.loose, grade.verdict, grade.same_set) == (False, True, "accidental", True)
    assert grade_sql(tagged("SELECT COUNT(id) FROM item"), row).strict
    # An error on the hidden database alone is no less accidental.
    assert grade_sql(tagged("SELECT 5 FROM item WHERE name = 'sofa'"), row).verdict == "accidental"


def test_ties_may_change_places_and_the_answer_is_the_result(item):
    row = row_of("SELECT name FROM item ORDER BY price DESC", item)
    queries = ["SELECT name FROM item ORDER BY price DESC, name", "SELECT name FROM item ORDER BY price DESC, id DESC"]
    grades = [grade_sql(tagged(query), row) for query in queries]
    assert all(grade.strict for grade in grades) and grades[0].answer == grades[1].answer
    wrong = grade_sql(tagged("SELECT name FROM item ORDER BY price"), row)
    assert (wrong.verdict, wrong.loose, wrong.same_set) == ("wrong", True, True) and wrong.answer != grades[0].answer


def test_a_base_model_goes_on_behind_the_mark(item):
    row = row_of("SELECT name FROM item", item) | {CONTINUES: True}
    assert grade_sql(" SELECT name FROM item;\nThis query ...", row).strict
    assert grade_sql("", row).verdict == "no_answer"


def test_the_columns_pay_for_results_and_log_what_groups_found(item):
    row = row_of("SELECT name FROM item", item)
    texts = ["SELECT name FROM item", "SELECT name FROM item ORDER BY id", "SELECT 1", "SELECT", "DROP TABLE item"]
    columns = {name: [value] * 5 for name, value in row.items()}
    logged, extra = {}, {}
    rewards = SqlReward()(
        prompts=["q"] * 5,
        completions=[[{"role": "assistant", "content": tagged(text)}] for text in texts],
        question=["q"] * 5,
        log_metric=logged.__setitem__,
        log_extra=extra.__setitem__,
        **columns,
    )
    assert rewards == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert ExecutesReward()(prompts=["q"] * 5, completions=list(map(tagged, texts)), **columns) == [1, 1, 1, 0, 0]
    assert extra["verdict"] == ["correct", "correct", "wrong", "error", "forbidden"]
    # `outcome` counts these: two texts with one result are one answer, a query without result is none.
    assert (
        len(set(extra["answer"])) == 3 and extra["answer"][0] == extra["answer"][1] and extra["answer"][3:] == ["", ""]
    )
    assert (logged["distinct_results"], logged["distinct_texts"], logged["verdict/correct"]) == (2, 5, 0.4)
    assert logged["accidental_share"] == 0


def test_the_reward_of_sql_r1_pays_in_steps(item):
    row = row_of("SELECT COUNT(*) FROM item", item)
    right = tagged("SELECT COUNT(*) FROM item")
    texts = ["SELECT 5", tagged("SELECT"), tagged("SELECT 4"), tagged("SELECT 5"), right]
    columns = {name: [value] * 5 for name, value in row.items()}
    no_shape, fails, wrong, accidental, correct = SqlR1Reward()(prompts=["q"] * 5, completions=texts, **columns)
    assert (no_shape, fails, wrong) == (-1, -1, 0) and 6 < accidental < 7.5
    assert correct == pytest.approx(6 + len(right) / 4096 + 25 / 27)


def test_a_killed_process_is_replaced_and_nothing_is_left(item, monkeypatch, tmp_path):
    quick = tmp_path / "worker.py"
    limits = {"CPU_SECONDS = 4.0": "CPU_SECONDS = 0.2", "STEP_BUDGET = 20_000_000": "STEP_BUDGET = 200_000"}
    text = runners.WORKER.read_text()
    for given, small in limits.items():
        assert given in text
        text = text.replace(given, small)
    quick.write_text(text)
    monkeypatch.setattr(runners, "WORKER", quick)
    opened = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    own = Runner()
    slow = "SELECT instr(printf('%.*c', 900000, 'x'), printf('%.*c', 450000, 'x') || 'y')"
    assert own.run(item[0], slow).status == "timeout" and own.worker.process is None
    assert own.run(item[0], "SELECT COUNT(*) FROM item").rows == [(5,)]
    first = own.worker.process.pid
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT COUNT(*) FROM c"
    assert own.run(item[0], endless).message == "interrupted", "by the budget of steps"
    for number in range(230):  # the other hostile ones of a step of 256, and the ordinary ones
        own.run(
            item[number % 2], HOSTILE[number % len(HOSTILE)] if number % 9 == 0 else f"SELECT {number}, name FROM item"
        )
    assert own.worker.process.pid == first, "nothing but a kill starts a process anew"
    own.close()
    assert not os.path.exists(f"/proc/{first}")
    assert not opened or len(os.listdir("/proc/self/fd")) == opened


def test_a_sort_larger_than_the_page_cache_stays_in_memory(item):
    numbers = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 60000)"
    found = runner().run(item[0], f"{numbers} SELECT COUNT(*) FROM (SELECT DISTINCT printf('%0100d', x) FROM c)")
    assert (found.status, found.rows) == ("ok", [(60_000,)]), "the process can write no file"


def test_results_that_are_kept_are_bounded_by_their_texts_too(item, monkeypatch):
    monkeypatch.setattr(runners, "CACHED_BYTES", 100_000)
    own = Runner()
    for number in range(10):
        own.run(item[0], f"SELECT printf('%0{30_000 + number}d', 1)")
    own.run(item[0], "SELECT printf('%030009d', 1)")
    assert len(own.kept) == 3
    assert own.size == sum(result.size + len(sql) for (_, sql), result in own.kept.items()) <= 100_000
    own.close()


@pytest.mark.parametrize(
    "sql",
    ["SELECT date()", "SELECT julianday()", "SELECT datetime('no' || 'w')", "SELECT time('NOW', '+1 day')"]
    + ["SELECT strftime('%Y')", "SELECT strftime('%s', 'now')", "SELECT datetime('subsec')"]
    + ["SELECT datetime(x'6e6f77')", "SELECT strftime('%s', x'4E4F57')", "SELECT unixepoch(x'737562736563')"]
    + [
        "SELECT datetime(cast(x'6e6f7700' as text))",
        "SELECT date('now' || char(0) || 'x')",
        "SELECT date(x'6e6f7700ff')",
    ]
    + ['SELECT "current_timestamp"()', "SELECT [current_date]()"],
)
def test_the_clock_is_forbidden_however_it_is_named(sql, item):
    assert runner().run(item[0], sql).status == "forbidden"


def test_functions_of_a_given_time_have_their_values(item):
    given = "date('2024-02-28', '+2 days'), strftime('%m now', '2024-02-28'), time(NULL), julianday(0), date(name)"
    found = runner().run(item[0], f"SELECT {given}, date(x'323032342d30312d3032') FROM item LIMIT 1")
    assert (found.status, found.rows) == ("ok", [("2024-03-01", "02 now", None, 0.0, None, "2024-01-02")])


def test_bad_rows_are_named(item):
    with pytest.raises(UserError, match="name no databases"):
        grade_sql("", {"gold": "SELECT 1"})
    with pytest.raises(RunError, match="cannot be opened"):
        grade_sql(tagged("SELECT 1"), {"gold": "SELECT 1", "databases": ["none.sqlite"], "tie_groups": [[]]})
    with pytest.raises(RunError, match="gives error"):
        grade_sql(tagged("SELECT 1"), {"gold": "SELECT x", "databases": item[:1], "tie_groups": [[]]})
