"""The command that measures the graders on labelled cases.

python -m evaluation.graders --cases tests/cases/gsm8k_answer_cases.jsonl --show

A case file holds JSON lines of three kinds, told apart by their fields: completions with a gold answer, GSM8K questions
with the solutions of several models, and Countdown problems. Each row has the verdict that a grader should reach, and
is judged by the function that pays the reward: `grade_number`, `grade_latex`, `grade_countdown` or `grade_igsm`, at the
tier that its options name, with the answer where its field ``answer_place`` says (tags, as without the field, or box).
Rows from the tests of other libraries ask in their options for other ways of reading (another language, fewer decimals,
letters alone); these are handed to `grade_latex` as a `Reading`.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError, run_cli
from common.flags import flag, parse_one
from rewards.answer import find_answer, grade_number, has_latex
from rewards.countdown import grade_countdown
from rewards.grade import TIERS, Grade
from rewards.graders import GRADERS
from rewards.latex import LATEX_FINDERS, canonical_latex, grade_latex
from rewards.latex_worker import Reading
from rewards.number import parse_number

SHOWN = 160  # characters of a completion

_PLAIN_GOLD = re.compile(r"\$?-?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)\$?")
_WAYS = {"latex": "latex", "expr": "expr", "string": "letter"}
_ENGLISH = "Language.ENGLISH"
_ANSWER_MARK = "A:"
# math-verify knows English alone: its word "answer" replaces that of the row's language, ...
_ANSWER_WORDS = re.compile(
    r"答案|答え|réponse|respuesta|resposta|risposta|antwort|ответ|الإجابة|إجابة|उत्तर", re.IGNORECASE
)
# ... and a space goes between scripts, since it finds numbers and letters after a space only.
_BORDERS = re.compile(
    r"(?<=[\u3040-\u30ff\u3400-\u9fff])(?=[0-9A-Za-z(\\$-])|(?<=[0-9A-Za-z)$])(?=[\u3040-\u30ff\u3400-\u9fff])"
)

_CALLED = {str: "a str", bool: "a bool", int: "an int", list: "a list", dict: "an object"}
_MAY_HAVE = {"source": str, "options": dict, "answer_place": str}  # fields of a case, null where it has none
_OPTIONS = {
    **dict.fromkeys(("grader", "language", "kind", "gold_sympy"), str),
    **dict.fromkeys(("match_types", "match_type"), list),
    **dict.fromkeys(("strict", "allow_set_relation_comp"), bool),
    "precision": int,
}


class Case(NamedTuple):
    """One judgement: what was expected of a grader and what it said; equal if it is right."""

    id: str
    source: str
    gold: str
    prediction: str
    expected: object
    got: object
    is_plain_number: bool = False


@dataclass
class GraderOptions:
    """Measure the graders on labelled cases."""

    cases: str = flag(MISSING, "JSON lines: labelled completions, model solutions or Countdown cases.")
    show: bool = flag(False, "Print each disagreement, and the errors on plain numbers.")


def read_rows(path: str) -> Iterator[tuple[int, dict]]:
    """(line number, row) for each line of a file of JSON objects; blank lines are skipped.

    Raises `UserError` when the file is missing or has no row, and with the line number when a line is no JSON object.
    """
    if not Path(path).is_file():
        raise UserError(f"--cases={path!r} is not a file; give the path of a file of JSON lines.")
    empty = True
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is not JSON ({error}); mend or remove the line.") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number} holds {line.strip()[:40]!r}; every line must be a JSON object.")
            empty = False
            yield number, row
    if empty:
        raise UserError(f"{path} is empty; give a file with one case per line.")


def judge_row(number: int, row: dict) -> list[Case]:
    """The judgements of the row in line ``number`` of a case file, by the grader of its kind.

    Raises `UserError` with the line number on a row of no known kind and on fields that hold something else than cases
    do.
    """
    for fields, judge_kind in _KINDS:
        if fields.keys() <= row.keys():
            try:
                _check_kinds(row, fields | {name: kind for name, kind in _MAY_HAVE.items() if name in row})
                _check_kinds(row.get("options") or {}, _OPTIONS)
                return judge_kind(str(row.get("id", number)), row)
            except UserError as error:
                raise UserError(f"line {number}: {error}") from None
    known = "; or ".join(", ".join(fields) for fields, _ in _KINDS)
    raise UserError(f"line {number} has the fields {', '.join(row) or 'none'}, but a case has {known}.")


def _check_kinds(values: dict, kinds: dict[str, type]) -> None:
    """Raise `UserError` where one of ``values`` is not of its kind; a number is no truth value, and no text."""
    for name, kind in kinds.items():
        value = values.get(name)
        is_other = isinstance(value, bool) and kind is int
        if name in values and (is_other or not isinstance(value, kind)) and not (name in _MAY_HAVE and value is None):
            raise UserError(f"{name} holds {value!r}, but must be {_CALLED[kind]}.")


def _judge_labelled(identity: str, row: dict) -> list[Case]:
    options = row.get("options") or {}
    gold, prediction = row["gold"], row["prediction"]
    case = Case(identity, row.get("source", "labelled"), gold, prediction, row["expected_bool"], None)
    if options.keys() >= set(TIERS):
        tiers = {tier: getattr(GRADERS["number"](prediction, row), tier) for tier in TIERS}
        return [case._replace(expected={tier: options[tier] for tier in TIERS}, got=tiers)]
    if "tier" in options or "grader" in options:
        try:
            grade = _grader(options, gold)(prediction, row)
        except KeyError as error:
            raise UserError(f"the grader {options['grader']!r} needs the field {error}; add it.") from None
        return [case._replace(got=getattr(grade, _tier(options, "medium")))]
    # Where the row asks for LaTeX alone, a completion without any has no answer.
    if _ways(options) == ("latex",) and not has_latex(prediction):
        prediction = ""
    is_english = options.get("language", _ENGLISH) == _ENGLISH
    if _PLAIN_GOLD.fullmatch(gold.strip()) and "kind" not in options and is_english:
        return [case._replace(got=grade_number(prediction, gold).loose, is_plain_number=True)]
    reading = _reading(options)
    # The gold is a whole solution in some rows, and in a few of them one with a brace too many, which training refuses.
    target = find_answer(gold, LATEX_FINDERS) if has_latex(gold) else gold
    if reading is None and gold.strip() and canonical_latex(target) is None:
        reading = Reading(ways=_ways(options))
    text = prediction if is_english else _in_english(prediction)
    got = grade_latex(text, gold if reading is not None and not reading.whole else target, reading).loose
    return [case._replace(got=got)]


def _grader(options: dict, gold: str) -> Callable[[str, dict], Grade]:
    """The grader that a row names, as "latex" or "rewards.latex.grade_latex"; by its gold where it names none."""
    default = "latex" if parse_number(gold) is None else "number"
    name = str(options.get("grader", default)).rpartition(".")[2].removeprefix("grade_")
    if name not in GRADERS:
        raise UserError(f"the grader {options['grader']!r} is unknown; use one of {', '.join(GRADERS)}.")
    return GRADERS[name]


def _tier(options: dict, default: str) -> str:
    tier = options.get("tier", default)
    if tier not in TIERS:
        raise UserError(f"the tier {tier!r} is unknown; use one of {', '.join(TIERS)}.")
    return tier


def _ways(options: dict) -> tuple[str, ...]:
    """The `Reading.ways` of a row."""
    if options.get("kind") == "letter-index":
        return ("letter",)
    names = options.get("match_types") or options.get("match_type") or ["latex", "expr"]
    for name in names:
        if not isinstance(name, str) or name not in _WAYS:
            raise UserError(f"the match type {name!r} is unknown; use some of {', '.join(_WAYS)}.")
    return tuple(_WAYS[name] for name in names)


def _reading(options: dict) -> Reading | None:
    """The way of reading that a row from the tests of a library asks for; None for the reward's."""
    ways = _ways(options)
    if options.get("language", _ENGLISH) != _ENGLISH or ways in (("letter",), ("expr",)):
        return Reading(ways=ways)
    if options.get("kind") == "parser-equality":
        return Reading(whole=True, units=False, gold_form=options.get("gold_sympy", ""))
    names = {"precision": "float_rounding", "strict": "strict", "allow_set_relation_comp": "set_relations"}
    asked = {field: options[name] for name, field in names.items() if name in options}
    return Reading(whole=True, **asked) if asked else None


def _in_english(text: str) -> str:
    """``text`` with the marks by which math-verify finds an answer, put in the place of those of other languages."""
    return _BORDERS.sub(" ", _ANSWER_WORDS.sub("answer", text)).replace("。", ". ").replace("：", ": ")


def _judge_solutions(identity: str, row: dict) -> list[Case]:
    gold = row["ground_truth"].rpartition(_ANSWER_MARK)[2].strip()
    solutions = {
        model: value
        for model, value in row.items()
        if isinstance(value, dict) and {"solution", "is_correct"} <= value.keys()
    }
    for value in solutions.values():
        _check_kinds(value, {"solution": str, "is_correct": bool})
    return [
        Case(identity, model, gold, value["solution"], value["is_correct"], grade_number(value["solution"], gold).loose)
        for model, value in solutions.items()
    ]


def _judge_countdown(identity: str, row: dict) -> list[Case]:
    if not all(type(number) is int for number in row["numbers"]):
        raise UserError(f"numbers holds {row['numbers']!r}, but must be a list of whole numbers.")
    grade = grade_countdown(row["completion"], row["numbers"], row["target"])
    got = getattr(grade, _tier(row.get("options") or {}, "medium"))
    gold = f"{row['numbers']} -> {row['target']}"
    return [Case(identity, row.get("source", "countdown"), gold, row["completion"], row["expected_bool"], got)]


_KINDS = (
    ({"gold": str, "prediction": str, "expected_bool": bool}, _judge_labelled),
    ({"question": str, "ground_truth": str}, _judge_solutions),
    ({"numbers": list, "target": int, "completion": str, "expected_bool": bool}, _judge_countdown),
)


def disagreements(cases: list[Case]) -> list[str]:
    """One line for each wrong judgement, and a last one with the errors on upstream rows whose gold is a number."""
    lines = [
        f"id {case.id} ({case.source}) gold {case.gold[:SHOWN]!r} prediction {_shorten(case.prediction)!r} "
        f"expected {case.expected} got {case.got}"
        for case in cases
        if case.got != case.expected
    ]
    plain = [case for case in cases if case.is_plain_number]
    if plain:
        accepted = sum(case.got and not case.expected for case in plain)
        rejected = sum(case.expected and not case.got for case in plain)
        lines.append(f"plain-number rows: {len(plain)}, wrongly accepted {accepted}, wrongly rejected {rejected}")
    return lines


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 4]} ... {text[-SHOWN * 3 // 4 :]}"


def summary(cases: list[Case]) -> list[str]:
    """``source right/total`` for each source in the order of the file, then the same for all of them."""
    total = Counter(case.source for case in cases)
    right = Counter(case.source for case in cases if case.got == case.expected)
    return [
        *(f"{source} {right[source]}/{count}" for source, count in total.items()),
        f"overall {right.total()}/{total.total()}",
    ]


def main() -> None:
    options = parse_one(GraderOptions)
    sys.stdout.reconfigure(errors="backslashreplace")  # a case may hold what is no text in UTF-8
    cases = [case for number, row in read_rows(options.cases) for case in judge_row(number, row)]
    if options.show:
        print("\n".join(disagreements(cases)))
    print("\n".join(summary(cases)))


if __name__ == "__main__":
    run_cli(main)
