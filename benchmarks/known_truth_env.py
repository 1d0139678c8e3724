"""A Countdown small enough to know everything about: every text a policy can write, its verdict and its probability.

A problem is three numbers and a target that exactly two pairs of operations reach, each a strategy. A text is five of
seven tokens, three of them the problem's numbers: "a op b op c" is the expression (a op b) op c, anything else is no
expression. A recurrent network over these tokens starts where one strategy is common and the other rare, and as all
7^5 texts of a problem can be enumerated, what it would do is computed, not estimated.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, permutations, product

import torch
from torch import Tensor, nn

from rewards.countdown import Verdict, grade_countdown
from rewards.expression import ZeroDivisorError, evaluate_expression, normal_form

OPERATIONS = "+-*/"
TOKENS = ("first", "second", "third", *OPERATIONS)
LENGTH = 5
PRIOR_COMMON, PRIOR_RARE = 0.2, 0.005
FIT_STEPS = 400  # of `fitted_policy`
WIDTH = 48  # of the hidden states of `Policy`
PRIOR_SHAPE = 0.7  # of the rest: wrong expressions with each number once


@dataclass(frozen=True)
class Problem:
    """Numbers, target, and the two operation pairs that reach it."""

    numbers: tuple[int, int, int]
    target: int
    common: str
    rare: str

    @property
    def question(self) -> str:
        """The problem as text."""
        return f"Numbers: {' '.join(map(str, self.numbers))}. Target: {self.target}."


def _pieces(sequence: tuple[int, ...], numbers: tuple[int, ...]) -> list[str]:
    return [str(numbers[token]) if token < 3 else TOKENS[token] for token in sequence]


def is_expression(sequence: tuple[int, ...]) -> bool:
    """Whether places in `TOKENS` alternate: number, operation, number, operation, number."""
    return all((token < 3) == (place % 2 == 0) for place, token in enumerate(sequence))


def completion_text(sequence: tuple[int, ...], numbers: tuple[int, ...]) -> str:
    """What the tokens stand for: two steps of reasoning and the answer."""
    if not is_expression(sequence):
        return f"<think>\n{' '.join(_pieces(sequence, numbers))}\n</think>"
    a, first, b, second, c = _pieces(sequence, numbers)
    inner, whole = f"{a}{first}{b}", f"({a}{first}{b}){second}{c}"
    return f"<think>\n{_step(inner, inner)}\n{_step(whole, whole)}\n</think>\n<answer>{whole}</answer>"


def _step(text: str, expression: str) -> str:
    try:
        return f"{text}={evaluate_expression(expression)[0]}"
    except ZeroDivisorError:
        return f"{text} is undefined"


def strategies(numbers: tuple[int, int, int]) -> dict[int, set[str]]:
    """Every whole number that some order of ``numbers`` gives -> the operation pairs that it takes."""
    found = defaultdict(set)
    for order, (first, second) in product(permutations(numbers), product(OPERATIONS, repeat=2)):
        try:
            value, _ = evaluate_expression(f"({order[0]}{first}{order[1]}){second}{order[2]}")
        except ZeroDivisorError:
            continue
        if value.denominator == 1:
            found[int(value)].add(first + second)
    return found


def find_problems(count: int, two_forms: bool = False) -> list[Problem]:
    """``count`` problems with two strategies, spread evenly over all with numbers 2 to 9 and targets 10 to 99.

    ``two_forms``: only those whose strategies are two expressions by `rewards.expression.normal_form` too.
    """
    found = []
    for numbers in combinations(range(2, 10), 3):
        reached = strategies(numbers)
        for target in sorted(reached.keys() & set(range(10, 100))):
            if len(reached[target]) == 2:
                pairs = sorted(reached[target], key=lambda pair: [OPERATIONS.index(op) for op in pair])
                found.append(Problem(numbers, target, *pairs))
    if two_forms:
        found = [problem for problem in found if len(right_forms(problem)) == 2]
    return found[:: len(found) // count][:count]


def right_forms(problem: Problem) -> set[str]:
    """The normal forms of the texts that solve ``problem``."""
    forms = set()
    for order, pair in product(permutations(problem.numbers), (problem.common, problem.rare)):
        text = f"({order[0]}{pair[0]}{order[1]}){pair[1]}{order[2]}"
        try:
            value, _ = evaluate_expression(text)
        except ZeroDivisorError:
            continue
        if value == problem.target:
            forms.add(normal_form(text))
    return forms


class World:
    """All texts of a few problems.

    Args:
        count: number of problems.
        two_forms: as in `find_problems`.
        common, rare: mass of each strategy in `prior`.
        decoy: mass of one wrong answer in `prior`.

    Attributes:
        sequences: (S, 5) places in `TOKENS` of every text a policy can write.
        right: (P, S) bool; common, rare: (P, S) bool, the right texts of each strategy.
        decoy: (P, S) bool, the texts of the wrong answer, with each number once, that has most nearly as many texts as
            the common strategy; the first such by its spelling.
        texts, answers, verdicts: of each problem, S texts, their canonical answers or None, and the grader's verdicts.
    """

    def __init__(
        self,
        count: int,
        two_forms: bool = False,
        common: float = PRIOR_COMMON,
        rare: float = PRIOR_RARE,
        decoy: float = 0.0,
    ):
        self.problems = find_problems(count, two_forms)
        self.common_mass, self.rare_mass, self.decoy_mass = common, rare, decoy
        self.all = list(product(range(len(TOKENS)), repeat=LENGTH))
        self.sequences = torch.tensor(self.all)
        self.texts, self.answers, self.verdicts = [], [], []
        size = (count, len(self.all))
        self.right, self.common, self.rare = (torch.zeros(size, dtype=torch.bool) for _ in range(3))
        self.numbers_once = torch.tensor([is_expression(s) and len({s[0], s[2], s[4]}) == 3 for s in self.all])
        for row, problem in enumerate(self.problems):
            self.texts.append([completion_text(sequence, problem.numbers) for sequence in self.all])
            self.answers.append([None] * len(self.all))
            self.verdicts.append([str(Verdict.NO_ANSWER)] * len(self.all))
            for column, sequence in enumerate(self.all):
                if is_expression(sequence):
                    self._judge(row, column, problem, TOKENS[sequence[1]] + TOKENS[sequence[3]])

    def _judge(self, row: int, column: int, problem: Problem, pair: str) -> None:
        grade = grade_countdown(self.texts[row][column], problem.numbers, problem.target)
        self.answers[row][column], self.verdicts[row][column] = grade.answer, grade.verdict
        self.right[row, column] = grade.medium
        self.common[row, column] = grade.medium and pair == problem.common
        self.rare[row, column] = grade.medium and pair == problem.rare

    @cached_property
    def decoy(self) -> Tensor:
        chosen = torch.zeros_like(self.right)
        for row, answers in enumerate(self.answers):
            places = defaultdict(list)
            for column in (self.numbers_once & ~self.right[row]).nonzero().flatten().tolist():
                if answers[column] is not None:
                    places[answers[column]].append(column)
            wanted = int(self.common[row].sum())
            best = min(places, key=lambda answer: (abs(len(places[answer]) - wanted), answer))
            chosen[row, places[best]] = True
        return chosen

    @cached_property
    def answer_numbers(self) -> Tensor:
        """(P, S) long: equal numbers for equal answers of a problem, 0 for none."""
        rows = []
        for answers in self.answers:
            places: dict[str | None, int] = {None: 0}
            rows.append([places.setdefault(answer, len(places)) for answer in answers])
        return torch.tensor(rows)

    @cached_property
    def approaches(self) -> list[list[Tensor]]:
        """Of each problem, the places of the right texts of each normal form."""
        found = []
        for row, answers in enumerate(self.answers):
            places = defaultdict(list)
            for column in self.right[row].nonzero().flatten().tolist():
                places[answers[column]].append(column)
            found.append([torch.tensor(columns) for columns in places.values()])
        return found

    @cached_property
    def prior(self) -> Tensor:
        """(P, S) probabilities that policies start from."""
        wrong = ~self.right
        shapes = (wrong & self.numbers_once).float()
        mass = PRIOR_SHAPE * shapes / shapes.sum(1, keepdim=True)
        mass = mass + (1.0 - PRIOR_SHAPE) * wrong / wrong.sum(1, keepdim=True)
        shares = [(self.common_mass, self.common), (self.rare_mass, self.rare)]
        if self.decoy_mass:
            shares.append((self.decoy_mass, self.decoy))
        prior = (1.0 - self.common_mass - self.rare_mass - self.decoy_mass) * mass
        for share, chosen in shares:
            prior = prior + share * chosen / chosen.sum(1, keepdim=True)
        return prior


class Policy(nn.Module):
    """A recurrent network over tokens that is told the problem's number: enough to have features and to be exact.

    Args:
        problems: number of problems.
    """

    def __init__(self, problems: int):
        super().__init__()
        self.problem = nn.Embedding(problems, WIDTH)
        self.token = nn.Embedding(len(TOKENS), WIDTH)
        self.cell = nn.GRUCell(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, len(TOKENS))

    def start(self, problems: Tensor) -> Tensor:
        """States (n, `WIDTH`) before the first token of ``problems`` (n,)."""
        return torch.tanh(self.problem(problems))

    def step(self, states: Tensor, tokens: Tensor) -> Tensor:
        """States after ``tokens`` (n,)."""
        return self.cell(self.token(tokens), states)

    def forward(self, problems: Tensor, sequences: Tensor) -> tuple[Tensor, Tensor]:
        """States (n, 5, `WIDTH`) that predict each token of ``sequences`` (n, 5), and log-softmax (n, 5, 7)."""
        state, states = self.start(problems), []
        for place in range(LENGTH):
            states.append(state)
            state = self.step(state, sequences[:, place])
        hidden = torch.stack(states, dim=1)
        return hidden, self.head(hidden).log_softmax(dim=-1)

    def distribution(self, problems: int) -> Tensor:
        """(P, S) log-probabilities of every text of every problem, by one pass over the tree of prefixes."""
        states = self.start(torch.arange(problems))
        logps = torch.zeros(problems, 1)
        for place in range(LENGTH):
            logps = (logps.flatten()[:, None] + self.head(states).log_softmax(dim=-1)).view(problems, -1)
            if place < LENGTH - 1:
                tokens = torch.arange(len(TOKENS)).repeat(len(states))
                states = self.step(states.repeat_interleave(len(TOKENS), dim=0), tokens)
        return logps

    @torch.no_grad()
    def sample(self, problems: Tensor, generator: torch.Generator) -> Tensor:
        """One text (n, 5) for each of ``problems`` (n,)."""
        states, tokens = self.start(problems), []
        for _ in range(LENGTH):
            chosen = torch.multinomial(self.head(states).softmax(dim=-1), 1, generator=generator).squeeze(1)
            tokens.append(chosen)
            states = self.step(states, chosen)
        return torch.stack(tokens, dim=1)


def fitted_policy(world: World, seed: int, steps: int = FIT_STEPS) -> Policy:
    """A policy from ``seed``, trained by the exact cross-entropy from `World.prior`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = Policy(len(world.problems))
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (-(world.prior * policy.distribution(len(world.problems))).sum(dim=1).mean()).backward()
        optimizer.step()
        schedule.step()
    return policy
