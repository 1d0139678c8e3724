"""The list of checks is whole, and the page says what was measured on a GPU."""

import ast
from pathlib import Path

from tests.gpu.checks import GPU_CHECKS

ROOT = Path(__file__).parents[2]


def test_all_checks_of_the_list_exist_and_no_other():
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    found = [node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert sorted(name for name in found if name.startswith("test_")) == sorted(GPU_CHECKS)
    assert len(GPU_CHECKS) == 22


def test_the_page_has_the_ratios_of_the_table_measured_on_a_gpu():
    table = (ROOT / "benchmarks" / "results" / "gpu_nvidia-h200_step_time.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if line.startswith("| ")]
    over_ours = {row[1]: row[4] for row in rows}
    assert f"{over_ours['trl']} times as long per step" in page
    assert f"in our precision {over_ours['trl, our precision']} times" in page
