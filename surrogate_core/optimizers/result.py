"""What an optimizer returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from surrogate_core.optimizers.loop import Paths
from surrogate_core.optimizers.status import Status
from surrogate_core.space import SearchSpace
from surrogate_core.trust import Trust

DISTANCE = 0.02  # in unit-cube units, within which two ends are one optimum


@dataclass(frozen=True, eq=False)
class Trajectory:
    """How the start that came to the result went, an entry for each evaluation of the surrogate.

    Args:
        fun: (T,) what was minimized, NaN where it was not finite.
        rate: (T,) what the step there was of: the learning rate, the part of a step, or the radius; NaN at the start.
        accepted: (T,) whether the step was taken.
        x: (T, d) in the problem's units; none, (T, 0), where paths are many and long.
        measured: (T,) what the true function said, NaN where it was not called; None where there is none.
        why: of each step, with a true function, why it was taken or not.
    """

    fun: np.ndarray
    rate: np.ndarray
    accepted: np.ndarray
    x: np.ndarray
    measured: np.ndarray | None = None
    why: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Optimum:
    """One of several distinct designs that starts came to.

    Args:
        x: (d,) in the problem's units.
        value: of what was minimized, in its own units.
        predicted, uncertainty: mean and standard deviation of the surrogate, in the problem's units.
        n_starts: how many came to it.
    """

    x: np.ndarray
    value: float
    predicted: float
    uncertainty: float
    n_starts: int


@dataclass(frozen=True, eq=False)
class OptimizationResult:
    """A design, and how it was come by; `x`, `fun`, `success`, `nit` and `nfev` as in scipy.

    Args:
        x: (d,) a valid design in the problem's units.
        fun: the surrogate's prediction there, or what the true function said where it was called, in the problem's
            units.
        success: whether the start that came to it ended at what is taken for a minimum, and known constraints are met.
        status: why that start ended, a `Status`.
        message: the same in words.
        nit, nfev: iterations and evaluations of the surrogate, of all starts.
        trajectory: of the start that came to it.
        optima: distinct designs that starts came to, the best, which is `x`, first.
        violation: by how much known constraints are not met; 0 where they are.
        metadata: what else is known, by name.
        paths: of all starts, that which came to `x` first; None with a true function.
        assess: makes the report `trust`, with more evidence if given.
    """

    x: np.ndarray
    fun: float
    success: bool
    status: Status
    message: str
    nit: int
    nfev: int
    trajectory: Trajectory = field(repr=False)
    optima: tuple[Optimum, ...] = field(default=(), repr=False)
    violation: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    paths: Paths | None = field(default=None, repr=False)
    assess: Callable[..., Trust] | None = field(default=None, repr=False)

    @property
    def n_starts(self) -> int:
        """How many starts were followed."""
        return 1 if self.paths is None else len(self.paths.status)

    @property
    def agreement(self) -> float:
        """Which part of the starts came to `x`, to within the distance of distinct optima; 0 of another design."""
        if self.paths is None:
            return 1.0
        return self.optima[0].n_starts / self.n_starts if self.optima else 0.0

    def agreement_at(self, x: np.ndarray, space: SearchSpace) -> float:
        """Which part of the starts came to x, (d,), to within the distance of distinct optima."""
        near = same_design(space, np.array([one.x for one in self.optima]), x)
        return sum(one.n_starts for one, is_near in zip(self.optima, near, strict=True) if is_near) / self.n_starts

    @cached_property
    def trust(self) -> Trust:
        """How far the design can be believed, and why, by what the surrogate itself tells."""
        return self.trust_given()

    def trust_given(self, **evidence: Any) -> Trust:
        """The same with what is known beside the surrogate; see `surrogate_core.trust.assess`.

        Args:
            evidence: such as `r2` of held-out values, `best`, the value to be improved on, and `errors` of designs that
                were promised before.

        Raises:
            ValueError: the result was made by hand.
        """
        if self.assess is None:
            raise ValueError("trust: expected the result of an optimizer, got one that was made by hand")
        return self.assess(**evidence)


def same_design(space: SearchSpace, X: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n,): which points, (n, d), are the design x, (d,), to within the distance of distinct optima."""
    same_choices = (x == X)[:, space.n_choices > 0].all(axis=1)
    return np.asarray(same_choices & (np.linalg.norm(space.encode(X) - space.encode(x), axis=1) <= DISTANCE))
