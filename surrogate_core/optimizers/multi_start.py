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
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate


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
            q arrays of unit-cube points: the ends of the descents, then the screened points, each by value.
        """
        screened = np.concatenate([sample("sobol", self.n_screened, fitted.space.n_dims, seed), rows])
        descents, order = _descents(self, fitted.spec.traced, fitted.state, screened, kappas)
        return [np.concatenate([ends, screened[by]]) for ends, by in zip(np.asarray(descents.U), order, strict=True)]


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


def distinct(points: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """Which of the points, (n, d), are farther than `distance` from all of the others, (m, d)."""
    if len(others) == 0:
        return np.ones(len(points), dtype=bool)
    return (np.linalg.norm(points[:, None] - others[None], axis=-1) > distance).all(axis=1)
