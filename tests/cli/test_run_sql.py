"""run_sql.py and run_eval.py on SQL from the shell: a run with a bonus, an evaluation, and bad input."""

import json
import sqlite3

import pytest

from tests.processes import run_script


@pytest.fixture
def data(tmp_path):
    """A folder with questions on four small databases."""
    place = tmp_path / "spider"
    (place / "database").mkdir(parents=True)
    rows = []
    for db in "abcd":
        connection = sqlite3.connect(place / "database" / f"{db}.sqlite")
        connection.executescript("CREATE TABLE t (x INT); INSERT INTO t VALUES (1), (2), (3)")
        connection.close()
        rows += [{"db_id": db, "question": f"{n}?", "query": f"SELECT COUNT(*) FROM t WHERE x < {n}"} for n in range(4)]
    for name in ("train_spider.json", "dev.json"):
        (place / name).write_text(json.dumps(rows))
    return str(place)


def test_trains_with_a_bonus_and_evaluates_where_it_says(data, tmp_path):
    flags = ["--data", data, "--bs", "1", "--L", "6", "--max_steps", "2", "--do_eval", "1", "--eval_problems", "2"]
    sql = ["--hidden_databases", "1", "--execute_weight", "0.1"]
    output = run_script("run_sql.py", *flags, *sql, "--use_ir=outcome", "--seed", "0", cwd=tmp_path, fresh=True).stdout
    (folder,) = (tmp_path / "outputs" / "sql").iterdir()
    report = json.loads((folder / "eval" / "after.json").read_text())
    assert report["records"] and not {"databases", "tie_groups"} & report["records"][0].keys()
    assert "execution_minus_suite" in report["metrics"]
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = ("verdict/accidental", "accidental_share", "distinct_results", "rewards/executes/mean")
    assert any(all(name in line for name in names) for line in logged)
    (command,) = (line.strip() for line in output.splitlines() if "run_eval.py" in line and "python" in line)
    limits = ["--limit", "2", "--max_new_tokens", "4", "--prompt_type=plain", "--hidden_databases=0"]
    output = run_script("run_eval.py", *command.split()[2:], *limits, cwd=tmp_path).stdout
    assert "task spider" in output and "suite_accuracy" in output
    assert "execution_minus_suite  0" in output, "names and values stand apart"


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("run_sql.py", ["--split", "dev"], "--split='dev': run_eval.py reports test rows"),
        ("run_sql.py", ["--schema_values", -1], "--schema_values=-1 must be at least 0"),
        ("run_eval.py", ["--task=bird", "--num_shots", 2], "--num_shots=2: SQL is asked without"),
        ("run_eval.py", ["--task=spider", "--hidden_databases", -1], "--hidden_databases=-1 must be at least 0"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(script, flags, message, tmp_path):
    result = run_script(script, *flags, cwd=tmp_path, code=2)
    assert message in result.stderr and "Traceback" not in result.stderr
