"""Questions of the small world and their queries: one structure, which is said in words and written as SQL.

A question is a head (what is asked of the items) and up to two conditions on them. A template is the kind of the head,
the kinds of the conditions, and how they are joined; columns, operators and values are not part of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

KINDS = ("lamp", "chair", "table", "shelf", "rug")
CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Kyoto")
COLUMNS = ("price", "stock", "weight")
LARGEST = 30  # number of a column, and of a condition
AGGREGATES = {"MAX": "largest", "MIN": "smallest", "AVG": "average", "SUM": "total"}
OPERATORS = {">": "over", "<": "under", ">=": "at least", "<=": "at most"}
_OPPOSITE = {">": "<=", "<": ">=", ">=": "<", "<=": ">"}
_TURNED = {">": "<", "<": ">", ">=": "<=", "<=": ">="}
HEADS = ("list", "count", "aggregate", "kinds", "sorted", "top", "per kind", "having", "amount", "except")
SORTED_HEADS = ("sorted", "top")
CONDITIONS = ("number", "kind", "not kind", "sold", "unsold")
CONNECTIVES = ("and", "or")
_NEGATED = {"kind": "not kind", "not kind": "kind", "sold": "unsold", "unsold": "sold"}
CONDITION_WEIGHTS = (1, 2, 3)  # how often a question has none, one or two conditions
REWRITTEN = 0.3  # chance that a part of a varied text is written another way


@dataclass(frozen=True)
class Condition:
    """What items must be: ``kind`` of `CONDITIONS`, and the column, operator and value that it takes."""

    kind: str
    value: int | str
    column: str = ""
    operator: str = ""

    @classmethod
    def drawn(cls, rng: Random) -> "Condition":
        """A random one."""
        kind = rng.choice(CONDITIONS)
        if kind == "number":
            return cls(kind, rng.randint(0, LARGEST), rng.choice(COLUMNS), rng.choice(tuple(OPERATORS)))
        return cls(kind, rng.choice(_values(kind)))

    def words(self) -> str:
        """As the question says it."""
        if self.kind == "number":
            return f"with {self.column} {OPERATORS[self.operator]} {self.value}"
        forms = {"kind": "of kind", "not kind": "not of kind", "sold": "sold in", "unsold": "never sold in"}
        return f"{forms[self.kind]} '{self.value}'"

    def sql(self, rng: Random | None = None) -> str:
        """As SQL says it; with ``rng`` now and then in another way that means the same, NULL included."""
        varied = rng is not None and rng.random() < REWRITTEN
        if self.kind == "number":
            if varied and rng.random() < 0.5:
                return f"{self.value} {_TURNED[self.operator]} {self.column}"
            if varied:
                return f"NOT {self.column} {_OPPOSITE[self.operator]} {self.value}"
            return f"{self.column} {self.operator} {self.value}"
        if self.kind == "kind":
            return f"kind IN ('{self.value}')" if varied else f"kind = '{self.value}'"
        if self.kind == "not kind":
            return f"NOT kind = '{self.value}'" if varied else f"kind <> '{self.value}'"
        sales = f"(SELECT item FROM sale WHERE city = '{self.value}')"
        if self.kind == "sold":
            return f"item.id IN {sales}"
        return f"NOT item.id IN {sales}" if varied else f"item.id NOT IN {sales}"


def _values(kind: str) -> tuple[str, ...]:
    return CITIES if kind in ("sold", "unsold") else KINDS


@dataclass(frozen=True)
class Query:
    """A question and its query.

    Attributes:
        head: one of `HEADS`; which of the following count depends on it.
        column, operator, number: the column asked about or sorted by; of "except" a comparison; of "top" and "having"
            a number of items.
        aggregate: of `AGGREGATES`. descending: of sorted heads. distinct: whether "kinds" says DISTINCT.
        conditions, connective: up to two, joined by "and" or "or".
    """

    head: str
    column: str
    operator: str
    number: int
    aggregate: str
    descending: bool
    conditions: tuple[Condition, ...]
    connective: str
    distinct: bool = True

    @classmethod
    def drawn(cls, rng: Random) -> "Query":
        """A random one."""
        head = rng.choice(HEADS)
        (count,) = rng.choices(range(len(CONDITION_WEIGHTS)), CONDITION_WEIGHTS)
        return cls(
            head=head,
            column=rng.choice(COLUMNS),
            operator=rng.choice(tuple(OPERATORS)),
            number=rng.randint(0, LARGEST) if head == "except" else rng.randint(2, 3),
            aggregate=rng.choice(tuple(AGGREGATES)),
            descending=rng.random() < 0.5,
            conditions=tuple(Condition.drawn(rng) for _ in range(count)),
            connective=rng.choice(CONNECTIVES),
        )

    @property
    def template(self) -> str:
        """The kinds of its parts, equal texts for equal templates."""
        head = self.aggregate if self.head == "aggregate" else self.head
        kinds = sorted(condition.kind for condition in self.conditions)
        return ", ".join([head, f" {self.connective} ".join(kinds)] if kinds else [head])

    @property
    def is_sorted(self) -> bool:
        """Whether the order of the rows is asked for; ties are then broken by the id, so that it is determined."""
        return self.head in SORTED_HEADS

    def words(self) -> str:
        """The question."""
        heads = {
            "list": "names of items",
            "count": "number of items",
            "aggregate": f"{AGGREGATES[self.aggregate]} {self.column} of items",
            "kinds": "different kinds of items",
            "sorted": "names of items",
            "top": f"names of {self.number} items",
            "per kind": "number per kind of items",
            "having": f"kinds that have at least {self.number} items",
            "amount": "amount sold per kind of items",
            "except": "kinds of items",
        }
        text = heads[self.head]
        if self.conditions:
            text += " " + f" {self.connective} ".join(condition.words() for condition in self.conditions)
        if self.is_sorted:
            text += f" by {'falling' if self.descending else 'rising'} {self.column}"
        if self.head == "except":
            text += f" but no kind of items with {self.column} {OPERATORS[self.operator]} {self.number}"
        return text

    def sql(self, rng: Random | None = None) -> str:
        """The query; with ``rng`` a text that says the same, now and then in another way."""
        parts = [condition.sql(rng) for condition in self.conditions]
        if rng is not None and rng.random() < REWRITTEN:
            parts.reverse()
        where = f" WHERE {f' {self.connective.upper()} '.join(parts)}" if parts else ""
        order = f" ORDER BY {self.column}{' DESC' if self.descending else ''}, item.id"
        return {
            "list": f"SELECT name FROM item{where}",
            "count": f"SELECT COUNT(*) FROM item{where}",
            "aggregate": f"SELECT {self.aggregate}({self.column}) FROM item{where}",
            "kinds": f"SELECT {'DISTINCT ' if self.distinct else ''}kind FROM item{where}",
            "sorted": f"SELECT name FROM item{where}{order}",
            "top": f"SELECT name FROM item{where}{order} LIMIT {self.number}",
            "per kind": f"SELECT kind, COUNT(*) FROM item{where} GROUP BY kind",
            "having": f"SELECT kind FROM item{where} GROUP BY kind HAVING COUNT(*) >= {self.number}",
            "amount": f"SELECT kind, SUM(amount) FROM item JOIN sale ON item.id = sale.item{where} GROUP BY kind",
            "except": f"SELECT kind FROM item{where} EXCEPT SELECT kind FROM item WHERE "
            f"{self.column} {self.operator} {self.number}",
        }[self.head]


def changed(query: Query, rng: Random) -> Query:
    """``query`` with one part changed or dropped: a slip, whose query runs and mostly gives another result."""
    slips: list[Callable[[], Query]] = []
    if query.conditions:
        slips += [lambda: _with_condition(query, rng), lambda: _with_condition(query, rng), lambda: _less(query, rng)]
    if len(query.conditions) > 1:
        slips.append(lambda: replace(query, connective=_other(query.connective, CONNECTIVES, rng)))
    if query.head in ("aggregate", "except", *SORTED_HEADS):
        slips.append(lambda: replace(query, column=_other(query.column, COLUMNS, rng)))
    if query.head == "aggregate":
        slips.append(lambda: replace(query, aggregate=_other(query.aggregate, AGGREGATES, rng)))
    if query.head == "except":
        slips.append(lambda: replace(query, operator=_other(query.operator, OPERATORS, rng)))
    if query.head in ("top", "having", "except"):
        slips.append(lambda: replace(query, number=_beside(query.number, rng)))
    if query.is_sorted:
        slips.append(lambda: replace(query, descending=not query.descending))
    if query.head == "kinds":
        slips.append(lambda: replace(query, distinct=not query.distinct))
    if not slips:
        slips.append(lambda: replace(query, head=_other(query.head, ("list", "count", "per kind", "amount"), rng)))
    return rng.choice(slips)()


def _with_condition(query: Query, rng: Random) -> Query:
    """``query`` with a slip in one of its conditions."""
    index = rng.randrange(len(query.conditions))
    old = query.conditions[index]
    if old.kind == "number":
        slips = [
            replace(old, operator=_other(old.operator, OPERATORS, rng)),
            replace(old, column=_other(old.column, COLUMNS, rng)),
            replace(old, value=_beside(old.value, rng)),
        ]
    else:
        slips = [replace(old, kind=_NEGATED[old.kind]), replace(old, value=_other(old.value, _values(old.kind), rng))]
    conditions = (*query.conditions[:index], rng.choice(slips), *query.conditions[index + 1 :])
    return replace(query, conditions=conditions)


def _less(query: Query, rng: Random) -> Query:
    """``query`` without one of its conditions."""
    index = rng.randrange(len(query.conditions))
    return replace(query, conditions=query.conditions[:index] + query.conditions[index + 1 :])


def _beside(number: int, rng: Random) -> int:
    return number + rng.choice((-1, 1)) if number else 1


def _other(value: str, known, rng: Random) -> str:
    return rng.choice([other for other in known if other != value])
