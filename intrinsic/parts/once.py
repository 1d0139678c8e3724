"""A value that several methods of a bonus ask of one rollout, computed once."""

from collections.abc import Callable
from typing import Generic, TypeVar

from intrinsic.rollout import Rollout

Value = TypeVar("Value")


class OncePerRollout(Generic[Value]):
    """``compute`` of the last rollout that was asked for; to be forgotten where what it reads changes."""

    def __init__(self, compute: Callable[[Rollout], Value]):
        self.compute = compute
        self.last: tuple[Rollout, Value] | None = None

    def __call__(self, rollout: Rollout) -> Value:
        if self.last is None or self.last[0] is not rollout:
            self.last = rollout, self.compute(rollout)
        return self.last[1]

    def forget(self) -> None:
        self.last = None
