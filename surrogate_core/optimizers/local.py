"""What all optimizers that follow one start at a time have in common."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.output import AnyArray

if TYPE_CHECKING:
    from surrogate_core.optimizers.result import OptimizationResult


class Point(NamedTuple):
    """A point that was evaluated."""

    u: Array
    value: Array
    gradient: Array


class Box(NamedTuple):
    """Bounds, (d,) each."""

    low: AnyArray
    high: AnyArray

    def clip(self, u: Array) -> Array:
        return jnp.clip(u, self.low, self.high)

    def slope(self, point: Point) -> Array:
        """Size of the projected gradient: what the step -gradient, cut off at the bounds, moves a variable by."""
        return jnp.abs(self.clip(point.u - point.gradient) - point.u).max()


class Move(NamedTuple):
    """What an optimizer makes of an evaluation.

    Args:
        point: where it is now.
        trial: (d,) what it wants evaluated next, within the box.
        memory: what it remembers.
        rate: what the step to the trial is of: the learning rate, the part of a step, the radius.
        accepted: whether the evaluated point was taken, which ends an iteration.
        status: RUNNING, or why it cannot go on.
    """

    point: Point
    trial: Array
    memory: Any
    rate: Array
    accepted: Array
    status: Array


@dataclass(frozen=True)
class LocalOptimizer(ABC):
    """A spec of how one start is followed down the gradient, and when it ends.

    Args:
        max_iterations: steps that are taken.
        tolerance: a start has converged where the step -gradient, cut off at the bounds, moves no variable by more.
        patience: iterations in a row without improvement after which a start is ended; None for no such end.
        min_improvement: of the value, above which an iteration has improved it.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str]
    max_iterations: int = 150
    tolerance: float = 1e-6
    patience: int | None = None
    min_improvement: float = 1e-6

    def __post_init__(self) -> None:
        check_count("max_iterations", self.max_iterations)
        if self.patience is not None:
            check_count("patience", self.patience, " or none")
        for name in ("tolerance", "min_improvement"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected a number >= 0, got {getattr(self, name)!r}")

    @property
    @abstractmethod
    def max_turns(self) -> int:
        """Evaluations that a start may take."""

    @abstractmethod
    def begin(self, u: Array) -> Any:
        """What it remembers before anything is evaluated: a pytree of arrays."""

    @abstractmethod
    def advance(self, memory: Any, point: Point, trial: Point, box: Box) -> Move:
        """What follows from an evaluation; pure, of one start.

        Args:
            memory: of the last move.
            point: where it was; at first with the value infinity.
            trial: what was asked for.
            box: the bounds.
        """

    def optimize(
        self, surrogate: FittedSurrogate, x0: Any = None, bounds: Any = None, **how: Any
    ) -> "OptimizationResult":
        """Follows the surrogate from x0; see `surrogate_core.optimizers.optimize.optimize`."""
        from surrogate_core.optimizers.optimize import optimize  # it needs all optimizers

        return optimize(self, surrogate, x0, bounds, **how)


def check_count(name: str, value: Any, or_else: str = "") -> None:
    """Raises a ValueError if a value is no integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: expected an integer >= 1{or_else}, got {value!r}")
