"""The faults that the project promises to survive, each protected by at least one test with its mark."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
FAULTS = {
    "F1": "a bonus returns NaN",
    "F2": "a bonus returns infinity or more than the clip",
    "F3": "a bonus is constant in a group",
    "F4": "a tiny bonus in an all-wrong group",
    "F5": "a memory is empty, holds one value or fewer than k",
    "F6": "a memory is full and evicts many times",
    "F7": "a batch holds several questions",
    "F8": "the text encoder is missing offline",
    "F9": "a completion is empty or blank",
    "F10": "a completion holds NUL, lone surrogates, control characters, emoji or 20,000 characters",
    "F11": "a completion is cut off before its end",
    "F12": "several answers, or an answer inside the reasoning",
    "F13": "an empty answer, or one that names several numbers",
    "F14": "perfect tags around junk",
    "F15": "code in an answer",
    "F16": "an answer made to take for ever: powers, long integers, deep brackets",
    "F17": "a gold answer is missing or unreadable",
    "F18": "a grader raises",
    "F19": "a tokenizer has no padding token or no chat template, or pads with its end token",
    "F20": "a prompt is longer than its budget or the context",
    "F21": "a batch does not divide into groups, or there are too few problems for one",
    "F22": "the GPU runs out of memory",
    "F23": "SIGTERM or SIGINT in a generation or in a step",
    "F24": "the disk is full, or the process is killed, while a checkpoint is saved",
    "F25": "a file of the newest checkpoint is damaged or missing",
    "F26": "a pickle under the name of a bonus's state",
    "F27": "a run is resumed with other settings",
    "F28": "tracker or hub cannot be reached, the cache cannot be written, no terminal, no UTF-8, spaces in paths",
    "X1": "two runs in one folder",
    "X2": "loss or gradient is NaN",
    "X3": "the clock is changed",
    "X4": "an evaluation in the middle of training",
    "X5": "a run without a bonus, and without the packages that bonuses need",
}


def marked_faults() -> dict[str, list[str]]:
    """Fault -> names of the tests with its mark, read from the sources."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                        found.setdefault(mark.args[0].value, []).append(node.name)
    return found


def test_every_fault_of_the_list_has_a_test_and_no_mark_names_another():
    assert marked_faults().keys() == FAULTS.keys()
