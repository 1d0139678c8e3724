"""Rows of code: HumanEval, MBPP, and files of functions or programs with tests.

Every row has the columns id, question (what is asked, in words or as the head of a function), entry_point, test
(asserts), helpers (Python that the tests may use), imports, io (pairs of input and output of a program; empty for a
function), head (what a base model goes on from) and gold (a solution, "" where the source has none).
"""

import ast
import re
from keyword import iskeyword

from datasets import Dataset, Features, Sequence, Value

from common.errors import UserError
from tasks.load import folder_file, load_rows, row_place

HUMANEVAL, MBPP = "openai/openai_humaneval", "google-research-datasets/mbpp"
HUB_CONFIGS = {MBPP: "sanitized"}
MEASURES_INTERPRETER = 596  # of MBPP: the size of an object in the interpreter's memory
_TOP_LEVEL = re.compile(r"^def\s+(\w+)\s*\(", re.MULTILINE)
_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign)
FEATURES = Features(
    {
        **{name: Value("string") for name in ("id", "question", "entry_point", "test", "helpers", "imports", "head")},
        "io": Sequence(Sequence(Value("string"))),
        "gold": Value("string"),
    }
)


def load_code(source: str, split: str | None = None, show_tests: int = 1) -> Dataset:
    """Rows of a file, a folder with ``<split>.jsonl`` or a hub data set, by the columns they have.

    HumanEval: prompt, entry_point, test. MBPP: prompt or text, code, test_list. Programs: prompt and io.

    Args:
        show_tests: asserts of MBPP that the question shows, as an example of the function's name and arguments.

    Raises `UserError`, with the row, where it is none of these or has nothing to judge an answer by.
    """
    place = folder_file(source, split) or source
    rows = load_rows(place, split, HUB_CONFIGS.get(source))
    built = []
    for index, row in enumerate(rows):
        if row.get("task_id") == MEASURES_INTERPRETER and "test_list" in row:
            continue
        try:
            built.append({"id": str(row.get("task_id", row.get("id", index))), **_row(row, show_tests)})
        except ValueError as error:
            raise UserError(f"{row_place(place, split, index)} {error}; mend or remove the row.") from None
    return Dataset.from_list(built, features=FEATURES)


def _row(row: dict, show_tests: int) -> dict:
    question = row.get("prompt") or row.get("text")
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"has the question {question!r}, which is no text")
    empty = {"entry_point": "", "test": "", "helpers": "", "imports": "", "io": [], "head": "", "gold": ""}
    if row.get("io"):
        if not isinstance(row["io"], list) or not all(_are_texts(pair) and len(pair) == 2 for pair in row["io"]):
            raise ValueError("has an io that is no list of [input, output] pairs of texts")
        return empty | {"question": question, "io": [list(pair) for pair in row["io"]]}
    if row.get("test_list"):
        return empty | _mbpp(question, row, show_tests)
    entry_point, test = row.get("entry_point"), row.get("test")
    if not isinstance(entry_point, str) or not entry_point.isidentifier() or iskeyword(entry_point):
        raise ValueError(f"has the entry point {entry_point!r}, which is no name of a function")
    if not isinstance(test, str) or not test.strip():
        raise ValueError("has no test")
    _check_asserts(test)
    calls = f"\ncheck({entry_point})\n" if re.search(r"^def check\(", test, re.MULTILINE) else ""
    solution = row.get("canonical_solution") or ""
    if not isinstance(solution, str):
        raise ValueError(f"has the canonical_solution {solution!r}, which is no text")
    gold = question + solution if solution else ""
    found = {"question": question, "entry_point": entry_point, "test": test + calls, "gold": gold}
    return empty | found | {"helpers": "" if _is_prose(question) else question, "head": question}


def _is_prose(prompt: str) -> bool:
    """Whether ``prompt`` is words that happen to be Python, such as "Sort", which define nothing and fail if run."""
    try:
        body = ast.parse(prompt).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False  # a head without its body, which the sandbox completes; it leaves out what it cannot
    return not any(isinstance(statement, _DEFINES) for statement in body)


def _are_texts(value) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)


def _parsed(text: str, name: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"has {name} no Python ({error})") from None


def _check_asserts(test: str) -> None:
    """Raise `ValueError` unless ``test`` has an assert: the sandbox counts those, and judges by nothing else."""
    if not any(isinstance(node, ast.Assert) for node in ast.walk(_parsed(test, "a test that is"))):
        raise ValueError(f"has the test {test[:80]!r} without an assert, so no answer can pass it")


def _mbpp(question: str, row: dict, show_tests: int) -> dict:
    tests = row["test_list"]
    if not _are_texts(tests):
        raise ValueError(f"has the test_list {tests!r}, which is no list of texts")
    if not isinstance(row.get("code"), str):
        raise ValueError(f"has the code {row.get('code')!r}, which is no text")
    _check_asserts("\n".join(tests))
    imports = row.get("test_imports") or []
    if not _are_texts(imports):
        raise ValueError(f"has the test_imports {imports!r}, which are no list of texts")
    _parsed("\n".join(imports), "test_imports that are")
    # Of the functions that the gold defines, the one that the tests call: some define helpers, some shadow builtins.
    called = [name for name in _TOP_LEVEL.findall(row["code"]) if re.search(rf"\b{name}\s*\(", "\n".join(tests))]
    if not called:
        raise ValueError("has tests that call no function of its code")
    shown = tests[:show_tests]
    example = "\n".join(["", "It must satisfy:", *shown]) if shown else f"\nName the function {called[-1]}."
    lines = "\n    ".join([question, *shown])
    return {
        "question": question + example,
        "entry_point": called[-1],
        "test": "\n".join(tests),
        "imports": "\n".join(imports),
        "head": f'"""\n    {lines}\n"""\ndef {called[-1]}(',
        "gold": row["code"],
    }
