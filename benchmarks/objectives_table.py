"""What each objective pays an answer, by how many of its group are right: exact, from the objectives themselves.

python -m benchmarks.objectives_table [--num_generations 8] [--right 1,3,5,7] [--risk_beta 2] [--nsr_lambda 0.1] ...

The flags of the objectives are those of training. Advantages are those that reach the loss at weight 1 and without
--match_mass, verdicts being the only reward.
"""

from collections.abc import Callable
from dataclasses import dataclass

from common.errors import UserError, run_cli
from common.flags import flag, parse_one
from common.markdown import markdown_table
from intrinsic.flags.objective import ObjectiveFlags
from intrinsic.focal import Focal, focal_factor
from intrinsic.maxrl import MEAN, MaxRL
from intrinsic.nsr import NegativeSamples
from intrinsic.parts.count_objective import grpo_advantages
from intrinsic.pass_at_k import PassAtK
from intrinsic.risk import Risk

VERDICTS = ("right", "wrong")  # in the order of the pairs


@dataclass
class Options(ObjectiveFlags):
    """The group, and the settings of the objectives."""

    num_generations: int = flag(8, "Completions of a group, 2 or more.")
    right: str = flag(
        "", "Numbers of right answers, separated by commas, 0 to num_generations; unset: every second one from 1."
    )

    def __post_init__(self):
        n = self.num_generations
        if n < 2:
            raise UserError(f"--num_generations={n} must be at least 2: an objective compares completions.")
        try:
            self.counts = [int(c) for c in self.right.split(",")] if self.right else list(range(1, n, 2))
        except ValueError:
            raise UserError(f"--right={self.right!r} must be whole numbers separated by commas.") from None
        outside = [c for c in self.counts if not 0 <= c <= n]
        if outside:
            raise UserError(f"--right={self.right!r}: {outside[0]} is not between 0 and --num_generations={n}.")


def objectives(options: Options) -> dict[str, Callable[[int, int], tuple[float, float]]]:
    """Heading -> (n, c) -> advantages of a right and of a wrong answer, with the settings of ``options``.

    Raises `UserError` for settings out of range, or that the group does not allow.
    """
    focal, maxrl, risk = Focal.from_options(options), MaxRL.from_options(options), Risk.from_options(options)
    passk, nsr = PassAtK.from_options(options), NegativeSamples.from_options(options)
    for objective in (focal, maxrl, risk, passk, nsr):
        objective.check(options.num_generations, 1)

    def focal_advantages(n: int, c: int) -> tuple[float, float]:
        right, wrong = grpo_advantages(n, c)
        factor = focal_factor(n, c, focal.gamma)
        return right * factor, wrong * factor

    return {
        "GRPO": grpo_advantages,
        "MaxRL" if maxrl.order == MEAN else f"MaxRL order {maxrl.order}": maxrl.advantages,
        f"risk {risk.beta:g}": risk.advantages,
        f"focal {focal.gamma:g}": focal_advantages,
        f"pass@{passk.k}": passk.advantages,
        f"NSR {nsr.nsr_lambda:g}": nsr.advantages,
    }


def table(options: Options, verdict: str) -> str:
    """Markdown table of the advantages of "right" or "wrong" answers; "-" where a group has none of them."""
    n, side, shown = options.num_generations, VERDICTS.index(verdict), objectives(options)
    rows = []
    for c in options.counts:
        is_empty = c == (0 if verdict == "right" else n)
        values = [advantages(n, c)[side] for advantages in shown.values()]
        cells = ["-" if is_empty else f"{round(value, 3) + 0.0:.3f}" for value in values]  # + 0.0: no -0.000
        rows.append([c, *cells])
    return markdown_table([f"right of {n}", *shown], rows)


def main() -> None:
    options = parse_one(Options)
    tables = [f"Advantage of a {verdict} answer:\n\n{table(options, verdict)}" for verdict in VERDICTS]
    print("\n\n".join(tables))


if __name__ == "__main__":
    run_cli(main)
