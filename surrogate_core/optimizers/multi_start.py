"""Many starts at once through the surrogate's gradient: screened, and descended in one program."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from surrogate_core.acquisition import lower_confidence_bound
from surrogate_core.optimizers.gradient_descent import Descent, GradientDescentOptimizer
from surrogate_core.precision import float64
from surrogate_core.sampling import feasible_sample
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate

BISECTIONS = 30


@dataclass(frozen=True)
class MultiStartOptimizer:
    """Descends from the best of many points and ranks where the descents end.

    Args:
        n_starts: descents for each degree of exploration.
        n_screened: Sobol points among which the starts are chosen, beside the rows of the data.
        descent: the optimizer that each start follows.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "multi_start"
    n_starts: int = 16
    n_screened: int = 512
    descent: GradientDescentOptimizer = field(default_factory=GradientDescentOptimizer)

    def __post_init__(self) -> None:
        if self.n_starts < 1:
            raise ValueError(f"n_starts: expected an integer >= 1, got {self.n_starts!r}")
        if self.n_screened < self.n_starts:
            raise ValueError(f"n_screened: expected an integer >= n_starts = {self.n_starts}, got {self.n_screened!r}")

    @float64
    def candidates(self, fitted: FittedSurrogate, kappas: np.ndarray, rows: np.ndarray, seed: int) -> list[np.ndarray]:
        """Points worth evaluating by mean - kappa std, for each kappa, the best first.

        Args:
            fitted: the surrogate.
            kappas: (q,) degrees of exploration.
            rows: (k, d) unit-cube points worth starting from, such as the best of the data.
            seed: of the screened Sobol points.

        Returns:
            q arrays of unit-cube points: the ends of the descents, then the screened points, each by value. With
            constraints, those of them that meet these, and an end that does not drawn back to where it does.
        """
        space = fitted.space
        drawn = feasible_sample(space, "sobol", self.n_screened, seed)
        screened = np.concatenate([np.resize(drawn if len(drawn) else rows, (self.n_screened, space.n_dims)), rows])
        descents, order = _descents(self, fitted.spec.traced, fitted.state, screened, kappas)
        ends = list(np.asarray(descents.U))
        if space.constraints:
            drawn_back = [drawn_into(space, points, screened) for points in ends]
            values = _values(fitted.spec.traced, fitted.state, np.stack(drawn_back), kappas)
            ends = [points[by] for points, by in zip(drawn_back, np.argsort(values, axis=1), strict=True)]
        return [np.concatenate([points, screened[by]]) for points, by in zip(ends, order, strict=True)]


@partial(jax.jit, static_argnums=(0, 1))
def _descents(
    optimizer: MultiStartOptimizer, spec: Surrogate, state: Any, screened: Array, kappas: Array
) -> tuple[Descent, Array]:
    def objective(u: Array, kappa: Array) -> Array:
        return lower_confidence_bound(spec, state, u, kappa)

    def for_one(kappa: Array) -> tuple[Descent, Array]:
        values = jax.vmap(objective, in_axes=(0, None))(screened, kappa)
        by_value = jnp.argsort(values)
        ends = optimizer.descent.descend(objective, screened[by_value[: optimizer.n_starts]], kappa)
        best_first = jnp.argsort(ends.values)
        return jax.tree.map(lambda leaf: leaf[best_first], ends), by_value

    return jax.vmap(for_one)(kappas)


@partial(jax.jit, static_argnums=0)
def _values(spec: Surrogate, state: Any, U: Array, kappas: Array) -> Array:
    def of_one(points: Array, kappa: Array) -> Array:
        return jax.vmap(lambda u: lower_confidence_bound(spec, state, u, kappa))(points)

    return jax.vmap(of_one)(U, kappas)


def drawn_into(space: SearchSpace, points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Unit-cube points, (n, d), each moved towards the nearest of the others that meets the constraints until it does.

    Known constraints may be any function, so the boundary between the two is found by bisection. Where none of the
    others, (m, d), meets them, the points stay.
    """
    inside = others[space.is_feasible(space.decode(others))]
    moved = points.copy()
    out = np.flatnonzero(~space.is_feasible(space.decode(points)))
    if len(inside) == 0 or len(out) == 0:
        return moved
    apart = np.linalg.norm(points[out, None] - inside[None], axis=-1)
    anchors = inside[np.argmin(apart, axis=1)]
    low, high = np.zeros(len(out)), np.ones(len(out))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        meets = space.is_feasible(space.decode(anchors + middle[:, None] * (points[out] - anchors)))
        low, high = np.where(meets, middle, low), np.where(meets, high, middle)
    moved[out] = anchors + low[:, None] * (points[out] - anchors)
    return moved


def distinct(points: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """Which of the points, (n, d), are farther than `distance` from all of the others, (m, d)."""
    if len(others) == 0:
        return np.ones(len(points), dtype=bool)
    return (np.linalg.norm(points[:, None] - others[None], axis=-1) > distance).all(axis=1)
