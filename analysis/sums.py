"""Countdown problems that adding all numbers solves, and the others, apart.

A sum needs no search: a policy that adds the numbers whatever the target is right on all of the first and on none of
the others. So a difference in right answers on the first alone is no better search.
"""

from dataclasses import fields, replace

import numpy as np

from analysis.arms import Arm
from analysis.comparison import compare_arms
from analysis.evaluated import EvaluatedRun
from analysis.outcomes import digest_of_problem
from analysis.results_tables import difference_cells
from analysis.sweep import Sweep
from common.errors import UserError
from common.markdown import markdown_table
from tasks.countdown.problems import ProblemSpace, generate


def sums_table(sweep: Sweep) -> str:
    """Right answers after training on the problems that adding solves and on the others, each a family of its own.

    And a sentence on how many adding solves, of these problems and of those that a run was trained on. Raises as
    `adding_solves` does.
    """
    run = sweep.before[0]
    solved = adding_solves(run)
    base = sweep.result["baseline"]
    heads, before, parts = ["arm", "seeds"], ["before training", str(len(sweep.before))], []
    for keep, called in ((solved, "that adding solves"), (~solved, "others")):
        heads += [f"right on the {keep.sum()} {called}, %", f"difference to `{base}`", "Holm p"]
        before += [f"{100 * np.mean([run.scores['accuracy'][keep].mean() for run in sweep.before]):.1f}", "", ""]
        arms = [_narrowed(arm, keep) for arm in sweep.arms]
        baseline = next(arm for arm in arms if arm.label == base)
        parts.append(compare_arms(arms, baseline)["outcomes"]["accuracy"])
    rows = [["adding, whatever the target", "", "100.0", "", "", "0.0", "", ""], before]
    for label in sweep.result["runs"]:
        rows.append([f"`{label}`", str(len(parts[0][label]["by_seed"]))])
        for found in parts:
            row = found[label]
            rows[-1] += [f"{100 * row['mean']:.1f}", *(["", ""] if label == base else difference_cells(row))]
    trained = generate(run.flags["train_problems"], "train", run.seed, _space(run))
    share = np.mean([_is_sum(problem) for problem in trained])
    return markdown_table(heads, rows) + (
        f"\n\nAdding solves {100 * solved.mean():.1f} % of these {len(solved)} problems, and {100 * share:.1f} % of "
        f"the {len(trained)} that seed {run.seed} draws its training problems from."
    )


def adding_solves(run: EvaluatedRun) -> np.ndarray:
    """(P,) bool in the order of ``run.problems``: whether all numbers of the problem add up to its target.

    A record keeps a hash of each problem; the problems are generated again by its flags and held against it.

    Raises `UserError` for a run of another task or of a file of problems, and where the problems are not those.
    """
    if run.task != "countdown" or run.flags.get("data") != "generate":
        raise UserError(f"{run.path} is not of generated Countdown problems, whose sums could be told from others.")
    split = run.flags.get("eval_split", "validation")  # older records have no such flag
    problems = generate(len(run.problems), split, 0, _space(run))
    found = []
    for identity, digest in run.problems.items():
        problem = problems[int(identity)]
        if digest_of_problem({name: problem[name] for name in ("numbers", "target")}) != digest:
            raise UserError(f"{run.path}: problem {identity} is not the one that its flags generate.")
        found.append(_is_sum(problem))
    return np.array(found)


def _is_sum(problem: dict) -> bool:
    return sum(problem["numbers"]) == problem["target"]


def _space(run: EvaluatedRun) -> ProblemSpace:
    return ProblemSpace(**{item.name: run.flags.get(item.name, item.default) for item in fields(ProblemSpace)})


def _narrowed(arm: Arm, keep: np.ndarray) -> Arm:
    """Right answers of ``arm`` on the problems ``keep`` alone."""

    def of(run: EvaluatedRun) -> EvaluatedRun:
        problems = dict(item for item, kept in zip(run.problems.items(), keep, strict=True) if kept)
        return replace(run, problems=problems, scores={"accuracy": run.scores["accuracy"][keep]})

    return replace(arm, runs={seed: of(run) for seed, run in arm.runs.items()})
