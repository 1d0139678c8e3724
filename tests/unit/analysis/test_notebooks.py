"""The notebooks run from top to bottom, on a toy run of the embedded policy, and are committed with their outputs."""

import json

import matplotlib
import pytest
from IPython.core.interactiveshell import InteractiveShell

from tests.processes import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TOY = ("--max_steps", 1, "--bs", 1, "--L", 8, "--eval_problems", 2, "--eval_greedy", "false", "--logging_steps", 1)


def code_cells(path):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two finished toy runs, whose names are those that `make demo` and a sweep leave."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def toy_runs(runs, run_here):
    for bonus in ("no", "knn+"):
        folder = runs / f"tiny_{bonus}_seed0"
        if not folder.exists():
            run_here("run_countdown", "--use_ir", bonus, "--encoder", "policy", "--output_dir", folder, *TOY)
    return runs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, toy_runs, monkeypatch, tmp_path):
    monkeypatch.setenv("RUN", str(toy_runs / "tiny_knn+_seed0"))
    monkeypatch.setenv("RUNS", str(toy_runs))
    monkeypatch.setenv("STEPS", "1")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    shell = InteractiveShell()
    for cell in code_cells(path):
        shell.run_cell("".join(cell["source"])).raise_error()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_its_outputs_and_none_of_the_machine_it_ran_on(path):
    cells = code_cells(path)
    assert any(cell["outputs"] for cell in cells)
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds
    assert not any(
        place in path.read_text(encoding="utf-8") for place in ("/home/", "/Users/", "/root", "site-packages")
    )
