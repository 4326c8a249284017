"""Which variables matter: Sobol indices of the surrogate's mean, and its relevances.

Notation: A, B: (n, d) independent uniform points of the unit cube; A_B^i: A with column i of B; f: the mean; V: its
variance.

Sources: Saltelli et al. (2010), Comput. Phys. Commun. 181(2), 259, table 2 (b) for first-order and (f), after Jansen
(1999), for total indices; Sobol' (2001), Math. Comput. Simul. 55, 271.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from surrogate_core.performance.profiler import timed
from surrogate_core.precision import float64
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.validation.metrics import finite

BOOTSTRAPS = 100
FLAT = 1e-12  # a standard deviation below so much of the values' size is rounding


@dataclass(frozen=True, eq=False)
class SobolIndices:
    """Shares of the variance over the search space, all (d,); an estimate may miss [0, 1] by its error.

    Args:
        names: of the variables.
        first: what a variable explains alone.
        total: what would be left if all others were known: with all interactions.
        first_error, total_error: bootstrap standard errors, on the safe side: they know nothing of the even spread.
    """

    names: tuple[str, ...]
    first: np.ndarray
    total: np.ndarray
    first_error: np.ndarray
    total_error: np.ndarray

    @property
    def metrics(self) -> dict[str, float]:
        """first_order_share is 1 of a sum of functions of one variable each; the rest is interaction."""
        return {"first_order_share": finite(float(self.first.sum()))}

    def table(self) -> list[dict[str, Any]]:
        """A row for each variable."""
        columns = ("first", "total", "first_error", "total_error")
        rows = zip(*(getattr(self, column).tolist() for column in columns), strict=True)
        return [
            {"name": name, **dict(zip(columns, row, strict=True))} for name, row in zip(self.names, rows, strict=True)
        ]


@timed("sensitivity")
def sobol_indices(fitted: FittedSurrogate, seed: int, n: int = 1024) -> SobolIndices:
    """Indices of every variable, whatever its kind, uniform over its scale or its choices; constraints are not heeded.

    Args:
        fitted: the surrogate; it predicts n (d + 2) points. Where the data is not, it knows no more than it guesses.
        seed: of the points and the bootstrap.
        n: points of A and of B, best a power of 2.

    Raises:
        ValueError: n is below 2.
    """
    if n < 2:
        raise ValueError(f"n: expected an integer >= 2, got {n!r}")
    space, d = fitted.space, fitted.space.n_dims
    A, B = np.split(sample("sobol", n, 2 * d, seed), 2, axis=1)
    mixed = np.where(np.eye(d, dtype=bool)[:, None], B, A)  # (d, n, d): each A_B^i
    values = fitted.predict(space.decode(np.concatenate([A, B, *mixed]))).reshape(d + 2, n)
    size = np.abs(values).max()
    if values.std() <= FLAT * size:
        return SobolIndices(space.names, *np.zeros((4, d)))
    f = (values - values.mean()) / values.std()
    rng = np.random.default_rng(seed)
    drawn = np.array([_indices(f[:, rng.integers(n, size=n)]) for _ in range(BOOTSTRAPS)])
    return SobolIndices(space.names, *_indices(f), *drawn.std(axis=0))


@float64
def relevances(fitted: FittedSurrogate) -> np.ndarray:
    """(d,) shares, of sum 1, that variables have in the surrogate's squared distances between points: 1 / l^2.

    A short lengthscale l is a variable along which the function changes fast, in the unit cube. Unlike a Sobol index it
    says nothing of how much.
    """
    scale = np.asarray(fitted.spec.support(fitted.state).scale, dtype=float)
    relevance = (scale.min() / scale) ** 2 if np.isfinite(scale).any() else np.ones_like(scale)
    return relevance / relevance.sum()


def _indices(f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First-order and total indices, both (d,), of centred values (d + 2, n) at A, B and every A_B^i."""
    a, b, mixed = f[0], f[1], f[2:]
    V = np.var(f[:2]) or 1.0
    return np.mean(b * (mixed - a), axis=1) / V, np.mean((a - mixed) ** 2, axis=1) / (2 * V)
