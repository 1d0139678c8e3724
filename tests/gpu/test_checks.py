"""The list of checks is whole, and what is not measured on a GPU is said once."""

import ast
import re
from pathlib import Path

from tests.gpu.checks import GPU_CHECKS

ROOT = Path(__file__).parents[2]


def test_all_checks_of_the_list_exist_and_no_other():
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    found = [node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert sorted(name for name in found if name.startswith("test_")) == sorted(GPU_CHECKS)
    assert len(GPU_CHECKS) == 22


def test_one_place_says_that_nothing_is_measured_on_a_gpu():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts = {path.name: path.read_text(encoding="utf-8") for path in pages}
    said = [name for name, text in texts.items() for _ in re.findall(r"measured\s+on\s+a\s+GPU", text)]
    assert said == ["README.md"]
