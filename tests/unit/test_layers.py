"""Who may import whom: no room imports one that stands above it, no bonus another bonus, and there is no circle."""

import ast
from pathlib import Path

import pytest

from tests.processes import ROOMS, ROOT

MAY_IMPORT = {
    "common": set(),
    "policy": {"common"},
    "rewards": {"common"},
    "intrinsic": {"common"},
    "tasks": {"common", "rewards"},
    "evaluation": {"common", "policy", "rewards", "tasks"},
    "training": {"common", "policy", "rewards", "tasks", "intrinsic", "evaluation"},
    "cli": {"common", "policy", "intrinsic", "training"},
    "analysis": {"common", "policy", "rewards", "tasks", "intrinsic", "evaluation", "training"},
    "benchmarks": {"common", "policy", "rewards", "tasks", "intrinsic", "evaluation", "training", "cli", "analysis"},
}
# What a bonus file is made of, beside intrinsic.parts; sentence_memory is the memory of knn read sentence by sentence.
OF_A_BONUS = {"intrinsic.base", "intrinsic.rollout"}
BASE_CLASSES = {("intrinsic.sentence_memory", "intrinsic.knn_memory")}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


MODULES = {module_of(file) for room in MAY_IMPORT for file in files(room)}


def imports(file: Path) -> set[str]:
    """The project's modules that ``file`` names in its import statements, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {name if name in MODULES else node.module for name in _names(node)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in MAY_IMPORT or name.startswith("run_")}


def _names(node: ast.ImportFrom) -> list[str]:
    return [f"{node.module}.{alias.name}" for alias in node.names]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_room_imports_one_above_it(room):
    allowed = MAY_IMPORT[room] | {room}
    if room == "benchmarks":
        allowed |= {file.stem for file in ROOT.glob("run_*.py")}
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files(room)
        for name in sorted(imports(file))
        if name.split(".")[0] not in allowed
    ]
    assert wrong == []


def test_every_room_of_the_top_folder_is_in_the_table():
    assert {room.name for room in ROOMS} == MAY_IMPORT.keys()


def test_a_bonus_is_made_of_parts_and_not_of_another_bonus():
    from intrinsic import REGISTRY

    bonuses = {path.split(":")[0] for path in REGISTRY.values()}
    wrong = []
    for name in sorted(bonuses):
        for used in imports(ROOT / f"{name.replace('.', '/')}.py"):
            is_part = used.startswith(("intrinsic.parts.", "common.")) or used in OF_A_BONUS
            if not is_part and (name, used) not in BASE_CLASSES:
                wrong.append(f"{name} imports {used}")
    for file in files("intrinsic/parts"):
        wrong += [f"{module_of(file)} imports {used}" for used in imports(file) & bonuses]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others():
    graph = {module_of(file): imports(file) & MODULES for room in MAY_IMPORT for file in files(room)}
    circles, done = [], set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circles.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for used in sorted(graph[name]):
                visit(used, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    assert circles == []
