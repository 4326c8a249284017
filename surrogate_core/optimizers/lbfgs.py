"""Limited-memory BFGS within bounds.

Variables that are at a bound and pushed against it are held there; in the others the step is that of the two-loop
recursion over what the pairs tell of these variables alone. It is cut off at the bounds, so that those it meets hold
from then on, and a search along the segment, which the box holds all of, sees to a sufficient decrease. One turn of
the shared loop is one evaluation of that search, so that starts side by side never wait for each other's.

Notation: s: steps, y: changes of the gradient, (m, d), the oldest first; p: (d,) the direction; t: the part of it.

Source: Nocedal & Wright, "Numerical Optimization" (2006), algorithms 7.4 and 3.1; Morales & Nocedal (2011), ACM TOMS
38(1), 7, for the projection of the step.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from surrogate_core.optimizers.local import Box, LocalOptimizer, Move, Point, check_count
from surrogate_core.optimizers.status import Status

SUFFICIENT = 1e-4  # part of the decrease that the slope foretells
CURVED = 1e-10  # s'y / y'y above which a pair is kept
FIRST = 0.1  # length of the longest first step, in parts of the cube's side
LONGEST_CUT, SHORTEST_CUT = 0.5, 0.1
MAX_CUTS = 20
STEEP = 1e-4  # projected gradient at which no step is too small to be worth another
ROUNDING = 1e-14  # of values, relative to their size or to 1


class Memory(NamedTuple):
    """Pairs, 0 where there are none yet, and the search along a direction."""

    s: Array
    y: Array
    n_cuts: Array
    direction: Array
    part: Array


@dataclass(frozen=True)
class LBFGSOptimizer(LocalOptimizer):
    """L-BFGS with bounds.

    Args:
        max_iterations, tolerance, patience, min_improvement: see `LocalOptimizer`.
        min_reduction: of the value, relative to its size or to 1, below which a step has stalled, as in L-BFGS-B.
        n_pairs: how many steps are remembered.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "lbfgs"
    min_reduction: float = 1e-12
    n_pairs: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("n_pairs", self.n_pairs)
        if not self.min_reduction >= 0:
            raise ValueError(f"min_reduction: expected a number >= 0, got {self.min_reduction!r}")

    @property
    def max_turns(self) -> int:
        return 2 * self.max_iterations + MAX_CUTS

    def begin(self, u: Array) -> Memory:
        blank = jnp.zeros((self.n_pairs, len(u)))
        return Memory(blank, blank, jnp.int32(0), jnp.zeros_like(u), jnp.ones(()))

    def advance(self, memory: Memory, point: Point, trial: Point, box: Box) -> Move:
        s, y = trial.u - point.u, trial.gradient - point.gradient
        is_first = jnp.isinf(point.value)
        foretold = point.gradient @ s
        reduction = point.value - trial.value
        size = jnp.maximum(jnp.maximum(jnp.abs(point.value), jnp.abs(trial.value)), 1.0)
        # Within the rounding of values the slopes decide (Hager & Zhang 2005, SIAM J. Optim. 16(1), 170, eq. 4.1).
        falls = (
            jnp.isfinite(trial.value)
            & (reduction >= -ROUNDING * size)
            & (trial.gradient @ s <= (2 * SUFFICIENT - 1) * foretold)
        )
        accepted = is_first | (reduction >= -SUFFICIENT * foretold) | falls
        has_stalled = accepted & ~is_first & (reduction <= self.min_reduction * size)

        learns = accepted & ~is_first & (s @ y > CURVED * (y @ y))
        kept = memory._replace(
            s=jnp.where(learns, jnp.roll(memory.s, -1, axis=0).at[-1].set(s), memory.s),
            y=jnp.where(learns, jnp.roll(memory.y, -1, axis=0).at[-1].set(y), memory.y),
        )
        at = Point(*(jnp.where(accepted, new, old) for new, old in zip(trial, point, strict=True)))
        # Where a search fails, or ends on a slope, what the pairs tell is wrong: once more without them, straight down.
        n_cuts = jnp.where(accepted, 0, memory.n_cuts + 1)
        has_pairs = (kept.y != 0).any()
        gives_up = n_cuts > MAX_CUTS
        is_steep = box.slope(at) > STEEP
        forgets = (gives_up | has_stalled & is_steep) & has_pairs
        kept = kept._replace(s=jnp.where(forgets, 0.0, kept.s), y=jnp.where(forgets, 0.0, kept.y))

        newly = accepted | forgets
        direction = jnp.where(newly, _direction(kept, at, box), memory.direction)
        curve = 2 * (trial.value - point.value - foretold)
        cut = jnp.where(jnp.isfinite(curve) & (curve > 0), -foretold / jnp.where(curve > 0, curve, 1.0), 0.0)
        cut = jnp.clip(cut, SHORTEST_CUT, LONGEST_CUT)
        part = jnp.where(newly, 1.0, memory.part * cut)
        status = jnp.where(gives_up & ~has_pairs, Status.LINE_SEARCH_FAILED, Status.RUNNING)
        status = jnp.where(has_stalled & ~forgets, Status.STALLED, status)
        after = Memory(kept.s, kept.y, jnp.where(forgets, 0, n_cuts), direction, part)
        return Move(at, at.u + part * direction, after, part, accepted, status)


def _direction(memory: Memory, at: Point, box: Box) -> Array:
    """(d,) whose whole length stays within the box, and along which the value falls."""
    g = at.gradient
    free = ~((at.u <= box.low) & (g > 0) | (at.u >= box.high) & (g < 0))
    s, y, g = (jnp.where(free, one, 0.0) for one in (memory.s, memory.y, g))
    p = -_times_inverse_curvature(s, y, g)
    p = jnp.where(p @ g < 0, p, -g)
    cut_off = box.clip(at.u + p) - at.u
    steepest = box.clip(at.u - FIRST / jnp.maximum(jnp.abs(g).max(), FIRST) * g) - at.u
    return jnp.where(cut_off @ g < 0, cut_off, steepest)


def _times_inverse_curvature(s: Array, y: Array, g: Array) -> Array:
    """The two-loop recursion; pairs without curvature are left out, and without any a first step is short."""
    curvature = jnp.sum(s * y, axis=1)
    size = jnp.sum(y * y, axis=1)
    counts = curvature > CURVED * size
    rho = jnp.where(counts, 1 / jnp.where(counts, curvature, 1.0), 0.0)

    def back(q: Array, pair: tuple[Array, ...]) -> tuple[Array, Array]:
        s, y, rho = pair
        alpha = rho * (s @ q)
        return q - alpha * y, alpha

    def forth(q: Array, pair: tuple[Array, ...]) -> tuple[Array, None]:
        s, y, rho, alpha = pair
        return q + (alpha - rho * (y @ q)) * s, None

    q, alphas = jax.lax.scan(back, g, (s, y, rho), reverse=True)
    newest = len(s) - 1 - jnp.argmax(counts[::-1])
    first = FIRST / jnp.maximum(jnp.abs(g).max(), FIRST)
    scale = jnp.where(counts.any(), 1 / jnp.where(counts, rho * size, 1.0)[newest], first)
    return jax.lax.scan(forth, scale * q, (s, y, rho, alphas))[0]
