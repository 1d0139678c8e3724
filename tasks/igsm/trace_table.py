"""What injection does to traces: steps, reflections and analyses per trace by rate of reflection.

python -m tasks.igsm.trace_table --n 500
"""

from dataclasses import dataclass, replace
from random import Random

from tqdm import tqdm

from common.errors import run_cli
from common.flags import check_least, flag, parse_one
from common.markdown import markdown_table
from tasks.igsm.dataset import draw_items
from tasks.igsm.space import ProblemSpace
from tasks.igsm.trace import Behaviours, Trace, solve

# BRIDGE's program, measured at op 15-20, analysis level 2, 500 problems: rate -> steps and reflections per trace, and
# share of the traces with a reflection.
MEASURED = {
    0.0: (11.9, 0.0, 0.0),
    0.05: (12.7, 0.46, 0.38),
    0.1: (13.2, 0.89, 0.59),
    0.2: (14.0, 1.66, 0.83),
    0.3: (15.0, 2.50, 0.94),
}
MEASURED_ANALYSES = (3.6, 4.3)


@dataclass
class TableOptions:
    """Which traces are counted."""

    n: int = flag(500, "Problems, 1 or more.")
    seed: int = flag(100, "Seed of problems and traces.")
    min_op: int = flag(15, "Fewest operations.")
    max_op: int = flag(20, "Most operations.")
    op_distribution: str = flag("light", "light (as in BRIDGE's program) or uniform.")
    analysis_level: int = flag(2, "Level of information analysis, 0 to 4.")

    def __post_init__(self):
        check_least(self, n=1)


def draw_traces(n: int, space: ProblemSpace, seed: int, behaviours: Behaviours) -> list[Trace]:
    """Traces of ``n`` problems of any split."""
    items = draw_items(n, space, "all", seed)
    return [
        solve(item.problem, behaviours, Random(f"{seed}-table-{item.index}"))
        for item in tqdm(items, total=n, desc=f"rate {behaviours.p_reflect}", leave=False)
    ]


def summary(traces: list[Trace]) -> tuple[float, float, float, float]:
    """(steps, reflections, share with a reflection, analyses) per trace."""
    count = len(traces)
    return (
        sum(trace.steps for trace in traces) / count,
        sum(trace.reflections for trace in traces) / count,
        sum(trace.reflections > 0 for trace in traces) / count,
        sum(trace.analyses for trace in traces) / count,
    )


def main() -> None:
    options = parse_one(TableOptions)
    space = ProblemSpace(options.min_op, options.max_op, options.op_distribution)
    behaviours = Behaviours(analysis_level=options.analysis_level)
    low, high = MEASURED_ANALYSES
    heads, rows = ["p_reflect"], []
    for name in ("steps", "reflections", "with one", "analyses"):
        heads += [name, "BRIDGE"]
    for rate, (steps, reflections, share) in MEASURED.items():
        ours = summary(draw_traces(options.n, space, options.seed, replace(behaviours, p_reflect=rate)))
        shares = [f"{ours[2]:.0%}", f"{share:.0%}"]
        rows.append([rate, f"{ours[0]:.1f}", steps, f"{ours[1]:.2f}", reflections, *shares])
        rows[-1] += [f"{ours[3]:.1f}", f"{low} to {high}"]
    print(markdown_table(heads, rows))


if __name__ == "__main__":
    run_cli(main)
