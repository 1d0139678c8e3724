"""run_choice.py and run_eval.py on multiple choice from the shell: a run, both other ways of asking, and bad input."""

import json
from collections import Counter

import pytest

from rewards.choice import grade_choice
from tasks.choice.options import ChoiceOptions, load_problems
from tasks.traces import load_traces
from tests.processes import run_python, run_script


@pytest.fixture
def data(tmp_path):
    rows = [{"question": f"{n} + 1?", "choices": [str(n + 1), "x", "y"], "answer": 0} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "rows.jsonl")


def test_trains_with_a_bonus_and_reports_chance_and_letters(data, tmp_path):
    flags = ["--data", data, "--bs", "1", "--L", "6", "--max_steps", "2", "--do_eval", "1", "--eval_problems", "2"]
    run_script("run_choice.py", *flags, "--use_ir=outcome", "--seed", "0", cwd=tmp_path, fresh=True)
    (folder,) = (tmp_path / "outputs" / "choice").iterdir()
    report = json.loads((folder / "eval" / "after.json").read_text())
    assert {"chance_corrected", "letters/entropy"} <= report["metrics"].keys() and len(report["records"]) >= 2
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any("letters/C" in line and "verdict/no_answer" in line for line in logged)


@pytest.mark.parametrize(
    ("flag", "metric", "records", "compared"),
    [("--circular", "circular", 6, ["strict", "medium", "loose"]), ("--rank", "rank", 2, ["rank", "rank_per_byte"])],
)
def test_run_eval_rotates_the_options_or_ranks_them_and_compares_either(
    flag, metric, records, compared, data, tmp_path
):
    flags = ["--task=arc_easy", "--data", data, "--limit", 2, "--max_new_tokens", 4, flag]
    printed = run_script("run_eval.py", *flags, cwd=tmp_path).stdout
    assert metric in printed and printed.count("device: cpu (threads: 1), precision: ") == 1
    (path,) = (tmp_path / "outputs" / "eval" / "arc_easy" / "tiny").iterdir()
    report = json.loads(path.read_text())
    assert flag[2:] in path.name and len(report["records"]) == records and report["setup"]["device"] == "cpu"
    assert report["settings"]["data"] == data and report["settings"]["limit"] == 2 and len(report["rows"]) == 64
    _, *lines, note = run_script("run_eval.py", "--compare", path, path, cwd=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in lines] == compared and "+0.0 %" in lines[0]
    assert note.startswith("B minus A in percentage points over 2 problems")


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("run_choice.py", ["--split", "test"], "--split='test'"),
        ("run_choice.py", ["--subset", "ARC-Easy", "--easy", "1"], "--easy adds ARC-Easy"),
        ("run_eval.py", ["--task=gsm8k", "--circular", "1"], "--circular is for multiple choice alone"),
        ("run_eval.py", ["--task=countdown", "--output", "taken/x.json"], "'taken/x.json' cannot be written"),
        ("run_eval.py", ["--task=mmlu", "--num_shots", 2], "--num_shots=2 goes with --prompt_type=plain"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(script, flags, message, tmp_path):
    (tmp_path / "taken").touch()
    result = run_script(script, *flags, cwd=tmp_path, code=2)
    assert message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("answer", ["letter", "text"])
def test_traces_answer_in_the_shape_asked_for_and_are_right_as_often_as_asked(answer, tmp_path):
    rows = [{"question": f"{n} + 1?", "choices": [str(n + 1), "x", "y"], "answer": 0} for n in range(60)]
    data, output = tmp_path / "rows.jsonl", tmp_path / "traces.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--data", data, "--output", output, "--right_share", 0.5, "--n", 50, "--answer", answer]
    run_python("-m", "tasks.choice.traces", *flags)
    _, validation = load_problems(ChoiceOptions(data=str(data)), 8, validate=True, seed=0)
    verdicts = Counter()
    for trace in load_traces(str(output), "train"):
        question, *asked = trace["prompt"][1]["content"].splitlines()
        assert question not in validation["question"]
        choices = [line.partition(". ")[2] for line in asked]
        grade = grade_choice(trace["completion"][0]["content"], choices, str(int(question.split()[0]) + 1))
        verdicts[grade.verdict] += 1
        *reasoning, _, said, _ = trace["completion"][0]["content"].splitlines()
        assert grade.well_formed and reasoning[1] == grade.answer
        assert said == (grade.answer if answer == "text" else "ABC"[choices.index(grade.answer)])
    assert verdicts.keys() == {"correct", "wrong"} and verdicts["correct"] == pytest.approx(25, abs=10)
    assert verdicts.total() == 50
    ended = run_python("-m", "tasks.choice.traces", "--split", "test", "--output", output, code=2)
    assert "--split='test': run_eval.py reports test rows" in ended.stderr
