"""No source of the project runs text as code or unpickles what it reads, but for two files of the sandbox."""

import ast

import pytest

from tests.processes import ROOMS, ROOT

SOURCES = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in room.rglob("*.py"))])
# The exceptions, and all that each may call: answers and their tests run in processes of their own, which are confined;
# the server that forks these imports modules whose names it holds itself.
MAY_CALL = {
    "rewards/sandbox/answer_process.py": {"exec", "compile"},
    "rewards/sandbox/checking_process.py": {"exec", "compile"},
    "rewards/sandbox/child.py": {"__import__"},
}
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "sympify", "parse_expr", "os.system", "os.popen"),
    *("pickle.load", "pickle.loads", "dill.load", "joblib.load", "torch.load", "numpy.load", "np.load", "yaml.load"),
}


def called(source: str) -> set[str]:
    """Dotted names of everything that ``source`` calls, but for torch.load of tensors and plain values alone.

    The optimiser's state is a file of transformers, which reads it in that way too.
    """
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {ast.unparse(call.func) for call in calls if not _loads_tensors_alone(call)}


def _loads_tensors_alone(call: ast.Call) -> bool:
    settings = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return ast.unparse(call.func) == "torch.load" and settings.get("weights_only") == "True"


@pytest.mark.fault("F15")
@pytest.mark.fault("F26")
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_or_unpickles_what_it_reads(path):
    allowed = MAY_CALL.get(path.relative_to(ROOT).as_posix(), set())
    assert called(path.read_text(encoding="utf-8")) & FORBIDDEN == allowed


def test_calls_are_found_by_their_dotted_names():
    assert called("torch.load(f, weights_only=True)") == set() and called("torch.load(f, weights_only=False)")
    assert called("x = eval('1'); model.eval(); re.compile('a'); torch.load(f)") == {
        "eval",
        "model.eval",
        "re.compile",
        "torch.load",
    }
