"""The registry of graders and the command that measures them: targets on the case files, output, bad input."""

import json
from pathlib import Path

import pytest

from common.errors import UserError
from evaluation.graders import Case, disagreements, judge_row, read_rows, summary
from rewards.grade import TIERS
from rewards.graders import GRADERS
from tests.processes import run_script

ROOT = Path(__file__).resolve().parents[3]
CASES = ROOT / "tests" / "cases"
SHARED = ROOT / ".." / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")


def judged(path):
    return [case for number, row in read_rows(str(path)) for case in judge_row(number, row)]


def labelled(gold, prediction, expected_bool=True, **options):
    row = {"source": "s", "gold": gold, "prediction": prediction, "expected_bool": expected_bool, "options": options}
    return judge_row(1, row)[0]


def write(path, *rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def test_every_grader_takes_a_completion_and_its_row():
    assert GRADERS["number"]("<answer>1,080</answer>", {"gold": "1080"}).medium
    assert GRADERS["latex"]("<answer>\\dfrac12</answer>", {"gold": "\\frac{1}{2}"}).medium
    assert GRADERS["countdown"]("<answer>(1 + 2)*3</answer>", {"numbers": [3, 2, 1], "target": 9}).medium


@pytest.mark.parametrize(
    ("completion", "tiers", "answer"),
    [
        ("<think>w</think>\n<answer>1 + 2</answer>", (True, True, True), "1+2"),
        ("<answer>1 + 2 = 3</answer>", (False, True, True), "1+2"),
        ("<think><answer>1+2</answer></think>", (False, False, True), "1+2"),
        ("<answer>1</answer> <answer>2+1</answer>", (False, False, True), "1+2"),
        ("<think>w</think>\n<answer>2 - 1</answer>", (False, False, False), "2-1"),
        ("<answer>1 / 0</answer>", (False, False, False), "1/0"),
        ("<answer>one</answer>", (False, False, False), None),
        ("1 + 2", (False, False, False), None),
    ],
)
def test_countdown_grade_has_nested_tiers(completion, tiers, answer):
    grade = GRADERS["countdown"](completion, {"numbers": [1, 2], "target": 3})
    assert (grade.strict, grade.medium, grade.loose) == tiers
    assert grade.answer == answer


def test_authored_row_is_right_only_with_all_three_tiers():
    tiers = {"strict": False, "medium": True, "loose": True}
    case = labelled("18", "<answer>18</answer>", **tiers)
    assert case.expected == case.got == tiers
    case = labelled("18", "<answer>18</answer>", **(tiers | {"strict": True}))
    assert case.expected != case.got


@pytest.mark.parametrize(
    ("gold", "prediction", "options", "got"),
    [
        ("$9$", "Answer $ \n 9 \n $", {}, True),
        ("$9$", "Answer $ \n 9 \n $", {"match_types": ["latex"]}, False),
        ("$\\frac{1}{12}$", "$0.083$", {"precision": 2}, True),
        ("$\\frac{1}{12}$", "$0.083$", {"precision": 6}, False),
        ("$x + 1$", "$y + 1$", {"strict": True}, False),
        ("$x + 1$", "$y + 1$", {"strict": False}, True),
        ("$(1,2)$", "$1 < x < 2$", {"allow_set_relation_comp": False}, False),
        ("$(1,2)$", "$1 < x < 2$", {"allow_set_relation_comp": True}, True),
        ("B", "I think it's B", {"kind": "letter-index"}, True),
        ("B", "the answer is C", {"kind": "letter-index"}, False),
        ("C", "réponse est C non A", {"kind": "letter-index", "language": "Language.FRENCH"}, True),
        ("13/28", "计划的比例为13/28", {"language": "Language.CHINESE"}, True),
        ("$a + i b$", "$a+Ib$", {"kind": "parser-equality", "gold_sympy": "a + I*b"}, True),
        ("$a + i b$", "$a-Ib$", {"kind": "parser-equality", "gold_sympy": "a + I*b"}, False),
        ("\\boxed{42}", "<think>\\boxed{42}</think> Some text", {}, False),
    ],
)
def test_options_of_a_row_decide_how_it_is_judged(gold, prediction, options, got):
    assert labelled(gold, prediction, **options).got is got


def test_row_is_judged_by_the_grader_and_tier_it_names():
    block, prose = "<answer>2 dozen</answer>", "It took $x$ hours, so 24."
    for grader in ("latex", "rewards.latex.grade_latex", "number"):
        assert [labelled("24", block, grader=grader, tier=tier).got for tier in TIERS] == [False, True, True]
        assert [labelled("24", prose, grader=grader, tier=tier).got for tier in TIERS] == [False, False, True]
    assert labelled("25", "<answer>25%</answer>", tier="medium").got is False  # by its gold: a number
    assert labelled("25", "<answer>25%</answer>", grader="latex").got is True
    assert labelled("7", "<answer>\\boxed{7}</answer>", grader="igsm", tier="medium").got is True
    row = {"numbers": [1, 2], "target": 3, "completion": "<answer>2+1</answer>", "expected_bool": True}
    assert [judge_row(1, row | {"options": {"tier": tier}})[0].got for tier in TIERS] == [False, True, True]


@needs_shared
@pytest.mark.parametrize("name", ["grader_reports.jsonl", "countdown_reports.jsonl"])
def test_publicly_reported_faults_of_graders_are_none_here(name):
    assert all(case.got == case.expected for case in judged(SHARED / "reported_faults" / name))


def test_plain_number_gold_goes_through_the_exact_number_grader():
    assert labelled("$18$", "$18.0000001$").got is False
    assert labelled("$18$", "$18.0000001$").is_plain_number
    assert not labelled("18", "18", kind="letter-index").is_plain_number


@needs_shared
def test_targets_are_met_on_the_labelled_completions():
    cases = judged(SHARED / "grader_cases.jsonl")
    authored = [case for case in cases if isinstance(case.expected, dict)]
    plain = [case for case in cases if case.is_plain_number]
    others = [case for case in cases if not case.is_plain_number and not isinstance(case.expected, dict)]
    assert authored and all(case.got == case.expected for case in authored)
    assert not [case for case in plain if case.got and not case.expected]
    assert sum(case.expected and not case.got for case in plain) <= 0.1 * len(plain)
    assert sum(case.got == case.expected for case in others) >= 0.95 * len(others)


@needs_shared
def test_targets_are_met_on_model_solutions_and_countdown():
    solutions = judged(SHARED / "gsm8k" / "model_solutions.jsonl")
    assert len(solutions) == 2640
    assert sum(case.got == case.expected for case in solutions) >= 0.995 * len(solutions)
    countdown = judged(SHARED / "countdown_cases.jsonl")
    assert countdown and all(case.got == case.expected for case in countdown)


def test_summary_counts_each_source_and_all():
    right, wrong = Case("1", "a", "g", "p", True, True), Case("2", "b", "g", "p", True, False)
    assert summary([right, right, wrong]) == ["a 2/2", "b 0/1", "overall 2/3"]


def test_disagreements_name_the_row_and_count_errors_on_plain_numbers():
    accepted = Case("7", "a", "18", "x" * 999, False, True, is_plain_number=True)
    rejected = Case("8", "a", "18", "p", True, False, is_plain_number=True)
    first, second, last = disagreements([accepted, rejected, rejected._replace(got=True)])
    assert first.startswith("id 7 (a) gold '18'") and len(first) < 400 and "id 8" in second
    assert last == "plain-number rows: 3, wrongly accepted 1, wrongly rejected 1"


def test_command_prints_sources_and_overall_last():
    result = run_script("evaluation.graders", "--cases", CASES / "gsm8k_answer_cases.jsonl", fresh=True)
    assert result.stdout == "anchors-authored 64/64\noverall 64/64\n", result.stderr


def test_command_reports_bad_input_in_one_line(tmp_path):
    result = run_script("evaluation.graders", "--cases", tmp_path / "missing.jsonl", code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and "missing.jsonl" in result.stderr


GOOD = {"gold": "1", "prediction": "1", "expected_bool": True}
COUNTDOWN = {"numbers": [2, 3], "target": 5, "completion": "x", "expected_bool": True}


def test_what_is_no_text_in_utf_8_is_shown(tmp_path):
    write(tmp_path / "cases.jsonl", GOOD | {"id": "\ud800", "source": "a\ud800", "expected_bool": False})
    result = run_script("evaluation.graders", "--cases", tmp_path / "cases.jsonl", "--show")
    assert "id \\ud800 (a\\ud800) gold '1'" in result.stdout, result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (json.dumps(GOOD) + "\n{broken", "line 2 is not JSON"),
        (json.dumps(GOOD) + "\n\n[1]", "line 3 holds '\\[1\\]'"),
        ('{"question": "q"}', "line 1 has the fields question"),
        ("{}", "line 1 has the fields none"),
        (json.dumps(GOOD | {"gold": 1}), "line 1: gold holds 1, but must be a str"),
        (json.dumps(GOOD | {"options": {"match_types": ["pictures"]}, "gold": "x"}), "line 1: .*'pictures'"),
        (json.dumps(GOOD | {"options": {"tier": "lose"}}), "line 1: the tier 'lose' is unknown; use one of strict"),
        (json.dumps(GOOD | {"options": {"tier": ["loose"]}}), "line 1: the tier \\['loose'\\] is unknown"),
        (
            json.dumps(GOOD | {"options": {"grader": "sympy"}}),
            "line 1: the grader 'sympy' is unknown; use one of number",
        ),
        (json.dumps(GOOD | {"options": "loose"}), "line 1: options holds 'loose', but must be an object"),
        (json.dumps(GOOD | {"gold": "x", "options": {"grader": "igsm"}}), "line 1: the gold answer 'x' is no integer"),
        (json.dumps(GOOD | {"gold": "", "options": {}}), "line 1: the gold answer '' is blank"),
        *(
            (json.dumps(GOOD | {"gold": "x"} | change), f"line 1: {said}")
            for change, said in (
                ({"source": []}, "source holds .., but must be a str"),
                ({"answer_place": 5}, "answer_place holds 5"),
                ({"options": {"match_types": 5}}, "match_types holds 5, but must be a list"),
                ({"options": {"match_types": [["latex"]]}}, "the match type .'latex'. is unknown"),
                ({"options": {"precision": [1]}}, "precision holds .1., but must be an int"),
                ({"options": {"precision": True}}, "precision holds True, but must be an int"),
                ({"options": {"grader": "choice"}}, "the grader 'choice' needs the field 'choices'"),
                ({"options": {"grader": "countdown"}}, "the grader 'countdown' needs the field 'numbers'"),
            )
        ),
        *(
            (json.dumps(COUNTDOWN | {"numbers": numbers}), "line 1: numbers holds .*must be a list of whole numbers")
            for numbers in (["2", 3], [None, 3], [[2], 3], [{}, 3], [True, 3])
        ),
        (
            '{"question": "q", "ground_truth": "A: 1", "m": {"solution": 1, "is_correct": true}}',
            "line 1: solution holds 1, but must be a str",
        ),
        (
            '{"question": "q", "ground_truth": "A: none", "m": {"solution": "1", "is_correct": true}}',
            "line 1: .*'none'",
        ),
    ],
)
def test_bad_case_file_is_refused_with_its_line(tmp_path, content, message):
    path = tmp_path / "cases.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        judged(path)


def test_a_mark_of_utf_8_and_ends_of_lines_inside_texts_are_read(tmp_path):
    rows = [GOOD | {"id": f"a{end}b"} for end in "\u2028\u0085"]
    path = tmp_path / "cases.jsonl"
    path.write_text("\ufeff" + "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert [row for _, row in read_rows(str(path))] == rows


def test_missing_case_file_is_named():
    with pytest.raises(UserError, match="nowhere.jsonl"):
        judged("nowhere.jsonl")


def test_tiers_are_fields_of_a_grade():
    grade = GRADERS["number"](f"<answer>{5}</answer>", {"gold": "5"})
    assert [getattr(grade, tier) for tier in TIERS] == [False, True, True]
