"""Multiple choice: which option an answer names, order and rotations of options, what is reported, and bad rows."""

import json
import math

import pytest
import torch
from datasets import Dataset

from common.errors import UserError
from evaluation.choice import chance_corrected, choice_metrics
from evaluation.evaluate import record_summary
from evaluation.options import EvalOptions
from evaluation.rank import option_logps, rank_prompt
from evaluation.tasks import eval_task, load_rows
from rewards.choice import ChoiceReward, grade_choice, read_choice
from run_choice import scoring
from tasks.choice.options import ChoiceOptions, load_problems
from tasks.choice.problems import all_rotations, load_choice, moves, shuffle_choices
from tasks.choice.prompts import add_prompts
from tests.processes import ROOT

OPTIONS = ["iron", "a gas", "copper", "all of these"]
RIGHT = [
    *("C", "c", "(C)", "C.", "**C**", "\\boxed{C}", "C. copper", "copper", "Copper.", "The answer is C"),
    *("(C) copper", "(C): copper", "C copper", "C\ncopper", "C – copper", "C — copper", "The answer is (C) copper."),
    *("**C.** copper", "**C**. copper", "**C)** copper", "**(C)** **copper**", "\\(\\boxed{C}\\)", "\\[C\\]"),
    *("“C”", "‘C’", "C. “copper”", "Ｃ", "C\u200b", "\ufeffC", "\u200bcopper"),
]
VERDICTS = {
    "correct": RIGHT,
    "wrong": ["B", "a gas"],
    "unparsable": [
        "C. iron",
        "(C) iron",
        "C iron",
        "A copper",
        "E",
        "B or C",
        "A, C",
        "A C",
        "Ccopper",
        "a metal",
        "the answer is c",
        "I",
        "x" * 100_000,
    ],
    "no_answer": ["", " \n"],
}
UNTAGGED = {
    "The answer is C because a car moves.": True,
    "The answer is (C). Note that A is a common distractor.": True,
    "The answer is not A. The answer is C.": True,
    "The answer is not C.": False,
    "It is not option C.": False,
    "Conclusion: the answer is (C). Eliminated: (A), (B), (D).": True,
    "Answer:\n\nAnswer: C": True,
    "I would pick a safe one": False,
    "so \\boxed{\\text{C}}": True,
    "C": True,
    "A B C D": False,
}
ARC = ROOT.parent / "shared" / "data" / "arc"


@pytest.mark.parametrize(("verdict", "answer"), [(name, text) for name, texts in VERDICTS.items() for text in texts])
def test_an_answer_names_one_option_or_none(verdict, answer):
    grade = grade_choice(f"<think>\nB?\n</think>\n<answer>\n{answer}\n</answer>", OPTIONS, "copper")
    right = verdict == "correct"
    assert grade.verdict == verdict and grade.well_formed
    assert (grade.strict, grade.medium, grade.loose) == (right, right, right)
    assert grade.answer == {"correct": "copper", "wrong": "a gas"}.get(verdict)


@pytest.mark.parametrize(("text", "loose"), UNTAGGED.items(), ids=ascii)
def test_a_letter_in_running_text_is_an_answer_only_where_it_is_said_to_be_one(text, loose):
    grade = grade_choice(text, OPTIONS, "copper")
    assert (grade.verdict, grade.medium, grade.loose) == ("no_answer", False, loose)


def test_several_answers_and_answers_in_the_thinking_do_not_count():
    two = grade_choice("<answer>A</answer><answer>C</answer>", OPTIONS, "copper")
    assert (two.verdict, two.medium, two.loose) == ("multiple_answers", False, True)
    thought = grade_choice("<think><answer>C</answer></think> well", OPTIONS, "copper")
    assert (thought.verdict, thought.loose) == ("no_answer", False)
    line = grade_choice(" C\nQuestion: more", OPTIONS, "copper", first_line=True)
    assert (line.strict, line.verdict) == (True, "correct")
    assert grade_choice("<answer>Rr</answer>", ["rr", "Rr", "RR"], "Rr").medium
    assert grade_choice("no\nC", OPTIONS, "copper", first_line=True).verdict == "unparsable"


@pytest.mark.parametrize(
    ("answer", "options", "named"),
    [
        ("A gas", ["iron", "gas"], None),
        ("A gas", ["iron", "a gas"], 1),
        ("A gas", ["gas", "iron"], 0),
        ("B -1", ["1", "-1"], 1),
        ("B12", ["10", "12"], None),
        ("**B.** 2**3", ["23", "2**3"], 1),
        ("x²", ["x²", "x2"], 0),
        ("x^2", ["x2", "x²"], 1),
    ],
)
def test_a_letter_before_a_text_is_the_option_only_with_its_own_text(answer, options, named):
    assert read_choice(answer, options) == named


def rows(count=6):
    questions = [{"question": f"Which is {n}?", "choices": [str(n), "a", "b", "c"], "answer": 0} for n in range(count)]
    return questions


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_the_order_of_options_hangs_on_seed_and_question_and_keeps_those_that_speak_of_others(tmp_path):
    loaded = load_choice(write(tmp_path / "rows.jsonl", rows(40)), None)
    shuffled = shuffle_choices(loaded, 1)
    assert shuffled["choices"] == shuffle_choices(loaded, 1)["choices"] != shuffle_choices(loaded, 2)["choices"]
    assert shuffle_choices(loaded.select([7]), 1)["choices"][0] == shuffled["choices"][7]
    at = [row["choices"].index(row["gold"]) for row in shuffled]
    assert {0, 1, 2, 3} == set(at) and all(
        sorted(a) == sorted(b) for a, b in zip(*map(list, (shuffled["choices"], loaded["choices"])), strict=True)
    )
    assert (
        not moves(["x", "y", "None of the above"])
        and not moves(["x", "y", "A and B", "z"])
        and moves(["all of it", "x"])
    )
    assert [row["choices"][0] for row in all_rotations(loaded.select([3]))] == ["3", "a", "b", "c"]
    kept = Dataset.from_list([{**loaded[0], "choices": OPTIONS, "gold": "iron"}])
    assert len(all_rotations(kept)) == 1 and shuffle_choices(kept, 1)["choices"] == [OPTIONS]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"choices": ["a", "a ", "b"]}, "two are the same text as the answer's"),
        ({"choices": ["a"]}, "has 1 options; 2 to 10"),
        ({"answer": 4}, "has the answer 4, which is none of its 4 options"),
        ({"question": " "}, "has the question ' ', which is no text"),
    ],
)
def test_a_bad_row_is_named(change, said, tmp_path):
    with pytest.raises(UserError, match="row 1 of") as error:
        load_choice(write(tmp_path / "rows.jsonl", [rows(1)[0], rows(1)[0] | change]), None)
    assert said in str(error.value)


def test_labels_are_compared_as_texts_and_decide_alone(tmp_path):
    def gold(labels, answer):
        row = {"question": "q", "choices": {"text": ["x", "y"], "label": labels}, "answerKey": answer}
        return load_choice(write(tmp_path / "rows.jsonl", [row]), None)["gold"][0]

    assert [gold(["1", "2"], 1), gold([1, 2], "1"), gold(["B", "A"], "B"), gold(None, 1)] == ["x", "x", "x", "y"]
    for labels, answer, said in (
        (["A"], "B", "no 2 different ones"),
        (["A", "A"], "A", "no 2 different ones"),
        (["1", "2"], 0, "none of its labels"),
        (["C", "D"], "A", "none of its labels"),
    ):
        with pytest.raises(UserError, match=f"row 0 of .*{said}"):
            gold(labels, answer)


def test_layout_of_the_hub_is_read_and_no_test_split_is_trained_on(tmp_path):
    hub = {"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}
    folder = tmp_path / "arc"
    folder.mkdir()
    write(folder / "easy_test.jsonl", [hub])
    assert eval_task("arc_easy").load(str(folder), "test")["gold"] == ["y"]
    for wrong in ({"split": "test"}, {"split": "challenge_test"}, {"eval_split": "test[:9]"}):
        with pytest.raises(UserError, match="run_eval.py reports test rows"):
            ChoiceOptions(**wrong)
    for name in ("data", "eval_data"):
        with pytest.raises(UserError, match=f"--{name}='a/easy_test.jsonl': .*rename the file if it is no test set"):
            ChoiceOptions(**{name: "a/easy_test.jsonl"})
    for part, split in (("nonsense", "test"), ("ARC-Easy", "validation"), ("ARC-Challenge", "test")):
        with pytest.raises(UserError, match=f"has no questions of the part '{part}' and split '{split}'"):
            load_choice(str(folder), split, part)
    with pytest.raises(UserError, match="--prompt_type='qwen25-math-cot' does not go with"):
        ChoiceOptions(prompt_type="qwen25-math-cot")
    train, validation = load_problems(ChoiceOptions(data=write(tmp_path / "r.jsonl", rows(20))), 100, True, 0)
    assert (len(train), len(validation)) == (16, 4) and not set(train["question"]) & set(validation["question"])
    assert [row[0] for row in validation["choices"]] == validation["gold"], "not shuffled where it is evaluated"


def test_the_metrics_beside_accuracy():
    assert chance_corrected(0.625, [4, 4]) == pytest.approx(0.5)
    assert pytest.approx(0.89989, abs=1e-5) == 1 - 0.75**8
    records = []
    for number, row in enumerate(
        all_rotations(Dataset.from_list([{"choices": list("wxyz"), "gold": gold} for gold in "wx"]))
    ):
        # A policy that knows the first question and says B to the second.
        said = "w" if row["question_id"] == 0 else row["choices"][1]
        grade = grade_choice(f"<answer>{said}</answer>", row["choices"], row["gold"])
        records.append({**row, "id": number, "sample": 0, **record_summary(grade)})
    found = choice_metrics(records)
    assert found["circular"]["mean"] == 0.5 and found["chance_corrected"] == pytest.approx((5 / 8 - 1 / 4) / (3 / 4))
    assert found["letters/B"] == pytest.approx(5 / 8) and found["letters/constant"] == pytest.approx(1 / 4)


@pytest.mark.parametrize("prompt_type", ["reasoning", "think", "plain"])
def test_the_worked_example_is_paid_and_the_reward_logs_letters(prompt_type):
    scores = scoring(ChoiceOptions(prompt_type=prompt_type), 4)
    logged, texts = {}, {}
    assert isinstance(scores.columns[0], ChoiceReward)
    columns = {name: [value] for name, value in scores.row.items() if name not in ("prompt", "gold", "choices")}
    paid = scores.columns[0](
        [scores.row["prompt"]],
        [scores.answer],
        choices=[scores.row["choices"]],
        gold=[scores.row["gold"]],
        log_extra=texts.__setitem__,
        log_metric=logged.__setitem__,
        **columns,
    )
    assert paid == [1.0] and texts["answer"] == ["a cork"]
    assert logged["letters/C"] == logged["letters/constant"] == 1 and logged["letters/entropy"] == 0
    assert {f"letters/{letter}" for letter in "ABCD"} <= logged.keys()


def test_an_option_that_stands_in_signs_of_its_own_is_named_by_its_text_and_by_the_bare_one():
    options = ["$4$", "$5$", "'xy'", "**B**"]
    answers = {"$5$": 1, "5": 1, "B. $5$": 1, "b: 5": None, "\\boxed{5}": 1, "'xy'": 2, '"xy"': 2, "**B**": 3, "B": 1}
    assert {answer: read_choice(answer, options) for answer in answers} == answers


@pytest.mark.skipif(not ARC.is_dir(), reason="MMLU is not at ../shared/data")
def test_rows_of_mmlu_whose_wrong_options_are_alike_are_kept():
    data = str(ARC.parent / "mmlu")
    assert len(load_choice(data, "dev", "all")) == 285 and len(load_choice(data, "validation", "all")) == 1467


def test_ranking_sums_the_log_probabilities_of_an_options_tokens():
    from policy.load import load_policy, load_tokenizer
    from policy.options import PolicyOptions

    model, tokenizer = load_policy("tiny", PolicyOptions(dtype="float32")).eval(), load_tokenizer("tiny")
    found = option_logps(model, tokenizer, rank_prompt("1 + 1?"), ["2", "3 + 4 + 5", "x"])
    for choice, logp in zip(["2", "3 + 4 + 5", "x"], found, strict=True):
        ids = torch.tensor([tokenizer(f"{rank_prompt('1 + 1?')} {choice}")["input_ids"]])
        start = len(tokenizer(rank_prompt("1 + 1?"))["input_ids"])
        with torch.no_grad():
            logps = model(ids).logits[0].log_softmax(-1)
        alone = sum(logps[at - 1, ids[0, at]].item() for at in range(start, ids.shape[1]))
        assert math.isclose(alone, logp, abs_tol=1e-3)


def test_solved_questions_of_the_same_subject_stand_before_the_question(tmp_path):
    def lines(subject: str, count: int) -> list[dict]:
        return [{**row, "question": f"{subject} {row['question']}", "subject": subject} for row in rows(count)]

    write(tmp_path / "test.jsonl", lines("law", 2))
    write(tmp_path / "dev.jsonl", lines("law", 3) + lines("art", 2))
    task, settings = eval_task("mmlu"), {"task": "mmlu", "data": str(tmp_path), "prompt_type": "plain"}
    first, _ = load_rows(task, EvalOptions(num_shots=2, **settings))
    shots = [shot["question"] for shot in first["shots"]]
    assert len(shots) == 2 and shots == sorted(shots) and all(text.startswith("law") for text in shots)
    asked = task.add_prompts(load_rows(task, EvalOptions(num_shots=3, **settings)), "plain", 3, 0)
    assert "shots" not in asked.column_names
    assert asked["prompt"][1].count("\nAnswer: A\n\n") == 3 and asked["prompt"][1].endswith("D. c\nAnswer:")
    assert rank_prompt("why?", first["shots"]).count("Answer:") == 3
    with pytest.raises(UserError, match="--num_shots=4: there are 3 solved questions of the subject 'law'"):
        load_rows(task, EvalOptions(num_shots=4, **settings))
    with pytest.raises(UserError, match="examples are of the split 'dev'"):
        load_rows(task, EvalOptions(num_shots=1, **settings | {"data": str(tmp_path / "test.jsonl")}))


@pytest.mark.skipif(not ARC.is_dir(), reason="ARC is not at ../shared/data")
def test_arc_is_read_from_its_folder():
    test = eval_task("arc_challenge").load(str(ARC), "test")
    assert len(test) == 1172 and all(2 <= len(row) <= 10 for row in test["choices"])
    assert add_prompts(test.select([0]), "plain")["prompt"][0].endswith("\nAnswer:")
