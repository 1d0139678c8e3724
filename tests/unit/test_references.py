"""Names of the project's own code in docstrings, comments and pages lead to something that there is."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.processes import ROOMS, ROOT

NAME = re.compile(rf"`((?:{'|'.join(room.name for room in ROOMS)})(?:\.\w+)+)`")
COMMAND = re.compile(rf"-m ((?:{'|'.join(room.name for room in ROOMS)})(?:\.\w+)+)")
FOLDERS = (*(room.name for room in ROOMS), "docs", "notebooks", "tests")


@cache
def body_of(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text(encoding="utf-8")).body


def named(statement: ast.stmt) -> set[str]:
    """The names that a statement defines or imports."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return {target.id for target in targets if isinstance(target, ast.Name)}


def exists(name: str) -> bool:
    """Whether ``name`` is a package or module, or something that one defines: ``package.module.Class.method`` too."""
    place, *rest = ROOT, *name.split(".")
    while rest and (place / rest[0]).is_dir():
        place /= rest.pop(0)
    if rest and (place / f"{rest[0]}.py").is_file():
        body = body_of(place / f"{rest.pop(0)}.py")
    else:
        body = body_of(place / "__init__.py") if (place / "__init__.py").is_file() else []
    for part in rest:
        found = next((statement for statement in body if part in named(statement)), None)
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def test_a_name_of_ours_that_a_docstring_or_a_page_gives_is_there():
    assert exists("common.files.write_text") and exists("training.run_folder.MetricsFile.write")
    assert not exists("common.files.nothing") and not exists("common.nothing")
    files = [*ROOT.glob("*.py"), *ROOT.glob("*.md"), *(file for name in FOLDERS for file in (ROOT / name).rglob("*"))]
    stale = []
    for file in files:
        if file.suffix in (".py", ".md") and file != Path(__file__):
            text = file.read_text(encoding="utf-8")
            names = {*NAME.findall(text), *COMMAND.findall(text)}
            stale += [f"{file.relative_to(ROOT)}: {name}" for name in sorted(names) if not exists(name)]
    assert stale == []
