"""Steps of a quadratic model within a radius, which follows how far the model has held.

Notation: B: (d, d) the model's curvature; p: (d,) a step; q(p) = g'p + p'Bp / 2 what the model foretells of it.

Source: Nocedal & Wright, "Numerical Optimization" (2006), algorithms 4.1 and 6.2 (symmetric rank one).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from surrogate_core.dataset import Dataset
from surrogate_core.optimizers.local import Box, LocalOptimizer, Move, Point, check_count
from surrogate_core.optimizers.status import Status
from surrogate_core.surrogates.base import FittedSurrogate

if TYPE_CHECKING:
    from surrogate_core.optimizers.result import OptimizationResult

BAD, GOOD = 0.25, 0.75  # ratios below which the radius shrinks and above which it grows
AT_EDGE = 0.8  # of the radius, beyond which a step was held back by it
SHORTEST = 1e-12  # radius
TINY = 1e-300
SKEWED = 1e-8  # of a correction of B, below which its denominator is lost in rounding


class Memory(NamedTuple):
    """The model, its radius, what it foretold of the last trial, and whether it has learned yet."""

    B: Array
    radius: Array
    foretold: Array
    has_learned: Array


@dataclass(frozen=True)
class TrustRegionOptimizer(LocalOptimizer):
    """A trust-region method within bounds, whose model learns from every evaluation.

    The region is a box around the point: no variable moves by more than the radius. Given a true function, `optimize`
    takes the surrogate itself for the model, and the true function decides (`surrogate_core.optimizers.verified`).

    Args:
        max_iterations, tolerance, patience, min_improvement: see `LocalOptimizer`.
        initial_radius, max_radius: in unit-cube units.
        eta: part of the foretold decrease above which a step is accepted.
        min_reduction: of the value, relative to its size or to 1, below which a model promises too little.
        validate_every: with a true function: it is called after so many steps, the others are taken on the surrogate's
            word.
        max_evaluations: of the true function, the start included.
        refit: whether the surrogate learns from each of them.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "trust_region"
    initial_radius: float = 0.1
    max_radius: float = 0.5
    eta: float = 0.15
    min_reduction: float = 1e-12
    validate_every: int = 1
    max_evaluations: int = 20
    refit: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.initial_radius <= self.max_radius:
            raise ValueError(
                f"initial_radius: expected a number in (0, max_radius = {self.max_radius!r}], "
                f"got {self.initial_radius!r}"
            )
        if not 0 <= self.eta < BAD:
            raise ValueError(f"eta: expected a number in [0, {BAD}), got {self.eta!r}")
        if not self.min_reduction >= 0:
            raise ValueError(f"min_reduction: expected a number >= 0, got {self.min_reduction!r}")
        for name in ("validate_every", "max_evaluations"):
            check_count(name, getattr(self, name))

    def optimize(
        self,
        surrogate: FittedSurrogate,
        x0: Any = None,
        bounds: Any = None,
        true_function: Callable[[np.ndarray], float] | None = None,
        dataset: Dataset | None = None,
        **how: Any,
    ) -> "OptimizationResult":
        """Follows the surrogate from x0; with a true function, as far as that agrees.

        Args:
            surrogate, x0, bounds, how: see `surrogate_core.optimizers.optimize.optimize`.
            true_function: of a point in the problem's units, (d,); a number. One that raises has no value there.
            dataset: what the surrogate was fitted to, by which it is fitted again.

        Raises:
            ValueError: a refit is asked for and there is no dataset.
        """
        if true_function is None:
            return super().optimize(surrogate, x0, bounds, **how)
        if not isinstance(surrogate, FittedSurrogate):
            raise ValueError(
                f"surrogate: expected one that this library fitted, as there is a true_function, got {surrogate!r}"
            )
        from surrogate_core.optimizers.verified import optimize_verified  # it needs all optimizers

        return optimize_verified(self, surrogate, x0, bounds, true_function, dataset, **how)

    @property
    def max_turns(self) -> int:
        return 2 * self.max_iterations + 20

    def begin(self, u: Array) -> Memory:
        return Memory(jnp.eye(len(u)), jnp.full((), self.initial_radius), jnp.ones(()), jnp.bool_(False))

    def advance(self, memory: Memory, point: Point, trial: Point, box: Box) -> Move:
        is_first = jnp.isinf(point.value)
        s, y = trial.u - point.u, trial.gradient - point.gradient
        ratio = jnp.where(is_first, 1.0, (point.value - trial.value) / memory.foretold)
        accepted = is_first | (ratio > self.eta)
        length = jnp.abs(s).max()
        larger = jnp.where((ratio > GOOD) & (length > AT_EDGE * memory.radius), 2 * memory.radius, memory.radius)
        radius = jnp.where(ratio < BAD, BAD * length, jnp.minimum(larger, self.max_radius))
        radius = jnp.where(is_first, self.initial_radius, radius)

        seen = jnp.isfinite(trial.value) & ~is_first
        bend = (s @ y) / jnp.where(length > 0, s @ s, 1.0)
        scaled = jnp.where(seen & ~memory.has_learned & (bend > 0), bend, 1.0) * memory.B
        B = jnp.where(seen, _learned(scaled, s, y), memory.B)
        at = Point(*(jnp.where(accepted, new, old) for new, old in zip(trial, point, strict=True)))
        low, high = jnp.maximum(box.low - at.u, -radius), jnp.minimum(box.high - at.u, radius)
        step = step_in_box(at.gradient, B, low, high)
        foretold = -(at.gradient @ step + step @ B @ step / 2)
        size = jnp.maximum(jnp.abs(at.value), 1.0)
        is_poor = foretold <= self.min_reduction * size
        # Nothing is known of the curvature at first, or it was mislearned: as much as ends the step at the edge.
        starts = is_first | (is_poor & memory.has_learned)
        bend = jnp.maximum(jnp.abs(at.gradient).max() / radius, TINY)
        plain = jnp.clip(-at.gradient / bend, low, high)
        B = jnp.where(starts, bend * jnp.eye(len(step)), B)
        step = jnp.where(starts, plain, step)
        foretold = jnp.where(starts, -(at.gradient @ plain + bend * (plain @ plain) / 2), foretold)
        has_stalled = (is_poor & ~starts) | (foretold <= 0) | (radius < SHORTEST)
        status = jnp.where(has_stalled, Status.STALLED, Status.RUNNING)
        after = Memory(B, radius, foretold, (memory.has_learned | seen) & ~starts)
        return Move(at, at.u + step, after, radius, accepted, status)


_Carry = tuple[Array, Array, Array, Array, Array]


def step_in_box(g: Array, B: Array, low: Array, high: Array) -> Array:
    """A step within bounds, (d,) each, that lowers the quadratic model: conjugate gradients along the box's faces.

    Where a bound is met, its variable is held there and the directions begin anew; so there are at most 2 d of them.
    """
    d = len(g)
    eps = 1e-12 * jnp.linalg.norm(g)

    def goes_on(carry: _Carry) -> Array:
        n, _, r, _, _ = carry
        return (n < 2 * d) & (jnp.linalg.norm(r) > eps)

    def turn(carry: _Carry) -> _Carry:
        n, p, r, v, free = carry
        Bv = B @ v
        bend, square = v @ Bv, r @ r
        whole = jnp.where(bend > 0, (r @ v) / jnp.where(bend > 0, bend, 1.0), jnp.inf)
        room = jnp.where(v > 0, high - p, jnp.where(v < 0, p - low, jnp.inf))
        until = jnp.where(v != 0, room / jnp.where(v != 0, jnp.abs(v), 1.0), jnp.inf)
        part = jnp.minimum(whole, until.min())
        part = jnp.where(jnp.isfinite(part), part, 0.0)
        hits = until <= part
        p = jnp.where(hits, jnp.where(v > 0, high, low), jnp.clip(p + part * v, low, high))
        free = free & ~hits
        left = jnp.where(free, -(g + B @ p), 0.0)
        again = hits.any()
        v = jnp.where(again, left, left + (left @ left) / jnp.where(square > 0, square, 1.0) * v)
        return n + 1, p, left, jnp.where(free, v, 0.0), free

    free = ~((low >= 0) & (g > 0) | (high <= 0) & (g < 0))
    r = jnp.where(free, -g, 0.0)
    return jax.lax.while_loop(goes_on, turn, (jnp.int32(0), jnp.zeros(d), r, r, free))[1]


def _learned(B: Array, s: Array, y: Array) -> Array:
    """B with what was measured along s, by the symmetric correction of rank one."""
    off = y - B @ s
    along = off @ s
    counts = jnp.abs(along) > SKEWED * jnp.linalg.norm(s) * jnp.linalg.norm(off)
    return B + jnp.where(counts, jnp.outer(off, off) / jnp.where(counts, along, 1.0), 0.0)
