"""Which iGSM problems are drawn."""

from dataclasses import dataclass
from random import Random

from common.errors import UserError, check_choice, check_number
from tasks.igsm.vocabulary import ANY, BRIEF, WORLDS

OP_DISTRIBUTIONS = ("uniform", "light")
# Two layers of two things have 2 edges at least; 28 edges, with 24 categories to count, use up the 52 letters.
FEWEST_EDGES, MOST_EDGES = 2, 28
LARGEST_ANSWER = 999
# Operations per edge of the structure graph that the generator still reaches in a fair number of draws.
_OPS_PER_EDGE = 2
_LARGEST_DIGIT = 9


@dataclass(frozen=True)
class ProblemSpace:
    """Ranges of the problems.

    Attributes:
        min_op, max_op: operations of the solution.
        op_distribution: "uniform" over the range, or "light" as in iGSM: the smaller of two uniform draws, which the
            rejections (see `tasks.igsm.dataset`) make smaller still.
        max_edges: most edges of the structure graph; 20 in iGSM-med, 28 in iGSM-hard.
        modulus: 0 for exact integers with an answer of at most 999 either way and constants 0 to 9 (BRIDGE); 23 for
            arithmetic modulo 23 with constants 0 to 22 (iGSM); any other modulus of 2 or more likewise.
        zero_drop: share of the problems with answer 0 that is left out; 1 removes them all.
        world: whose names the things have; "any": one of five that have names of up to three words, problem by problem.
    """

    min_op: int = 15
    max_op: int = 20
    op_distribution: str = "uniform"
    max_edges: int = 20
    modulus: int = 0
    zero_drop: float = 0.0
    world: str = ANY

    def __post_init__(self):
        check_number("max_edges", self.max_edges, least=FEWEST_EDGES, most=MOST_EDGES)
        most = _OPS_PER_EDGE * self.max_edges
        if not 1 <= self.min_op <= self.max_op <= most:
            raise UserError(
                f"--min_op={self.min_op} --max_op={self.max_op}: need 1 <= min <= max <= {most}, "
                f"what a structure graph of at most {self.max_edges} edges (--max_edges) gives."
            )
        check_choice("op_distribution", self.op_distribution, OP_DISTRIBUTIONS)
        if self.modulus != 0 and not 2 <= self.modulus <= 1000:
            raise UserError(f"--modulus={self.modulus} must be 0 (exact integers) or lie in 2..1000.")
        check_number("zero_drop", self.zero_drop, least=0, most=1)
        check_choice("world", self.world, (ANY, *WORLDS))

    @property
    def largest_constant(self) -> int:
        """Constants of the conditions are drawn from 0 to this."""
        return self.modulus - 1 if self.modulus else _LARGEST_DIGIT

    def draw_op(self, rng: Random) -> int:
        """The number of operations of one problem."""
        op = rng.randint(self.min_op, self.max_op)
        return min(op, rng.randint(self.min_op, self.max_op)) if self.op_distribution == "light" else op


TINY = ProblemSpace(3, 4, max_edges=4, modulus=7, zero_drop=0.5, world=BRIEF)
"""What configs/igsm_tiny.yaml trains the embedded policy on."""
