"""Where the data is, by a surrogate's own measure of distance, and how far beyond it a point lies."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.spatial import cKDTree

from surrogate_core.surrogates.kernels import choice_at
from surrogate_core.surrogates.output import AnyArray
from surrogate_core.surrogates.training import Training

EDGE = 0.95  # of the rows, this part is nearer to another row than the edge of the data
MOST_ROWS = 2048  # that stand for the data where there are more, the best of them among these
BEST_ROWS = 128
LEAST_RELEVANCE = 0.01  # of a variable beside the one that matters most


class Support(NamedTuple):
    """Rows and a measure: distances are Euclidean in units of `scale`; unlike choices are at distance 1 / scale.

    U: (N, d) unit-cube rows; w: (N,) whether it is a row and no padding; n_choices: (d,) of each variable, 0 for a
    number; scale: (d,); edge: the distance from the data at which it ends.
    """

    U: AnyArray
    w: AnyArray
    n_choices: AnyArray
    scale: AnyArray
    edge: AnyArray


def support_of(rows: Training, n_choices: np.ndarray, relevance: np.ndarray) -> Support:
    """Of rows that a surrogate has learned.

    Args:
        rows: of many, MOST_ROWS stand for all.
        n_choices: (d,).
        relevance: (d,) how much each variable matters, in any unit; the one that matters most has the scale 1.
    """
    U, F, most = rows.U, rows.F, relevance.max()
    scale = 1 / np.maximum(relevance / most, LEAST_RELEVANCE) if most > 0 else np.ones(len(relevance))
    if len(U) > MOST_ROWS:
        order = np.argsort(rows.z, kind="stable")
        others = np.random.default_rng(0).permutation(order[BEST_ROWS:])[: MOST_ROWS - BEST_ROWS]
        kept = np.sort(np.concatenate([order[:BEST_ROWS], others]))
        U, F = U[kept], F[kept]
    N = bucket(len(U))
    return Support(padded(U, N), np.arange(N) < len(U), n_choices, scale, np.float64(edge_of(F / scale[rows.group])))


def rows(support: Support) -> np.ndarray:
    """(n, d) unit-cube rows, without padding."""
    return np.asarray(support.U)[np.asarray(support.w)]


def extrapolation(support: Support, u: Array) -> Array:
    """Distance from u, (d,), to the nearest row, in units in which the edge of the data is at 1; differentiable."""
    m = support.n_choices
    apart = choice_at(u, m) != choice_at(support.U, m)
    delta = jnp.where(m > 0, apart, u - support.U) / support.scale
    r2 = jnp.where(support.w, jnp.sum(delta**2, axis=1), jnp.inf)
    nearest = jnp.min(r2)
    return jnp.where(nearest > 0, jnp.sqrt(jnp.where(nearest > 0, nearest, 1.0)), 0.0) / support.edge


def neighbours(rows: Training, support: Support) -> tuple[np.ndarray, np.ndarray]:
    """(n,) of each of n rows how far it is from the nearest other, as `extrapolation` tells it, and which that is."""
    n = len(rows.z)
    if n < 2:
        return np.ones(n), np.zeros(n, dtype=int)
    features = rows.F / np.asarray(support.scale)[rows.group]
    distance, place = cKDTree(features).query(features, k=2)
    return distance[:, 1] / support.edge, place[:, 1]


def bucket(n: int) -> int:
    """The least of 64, 96, 128, 192, … that holds n rows: a growing dataset compiles a handful of programs.

    Below 64 rows the padding costs less in all refits of a run than one more compilation would.
    """
    size = 64
    while size < n:
        size += size // 2 if size & (size - 1) == 0 else size // 3
    return size


def padded(array: np.ndarray, *shape: int) -> np.ndarray:
    """An array with zeros after what it has, of such a shape along its first axes."""
    grown = np.zeros((*shape, *array.shape[len(shape) :]))
    grown[tuple(slice(0, n) for n in array.shape)] = array
    return grown


def edge_of(features: np.ndarray) -> float:
    """The distance to its nearest neighbour below which EDGE of the rows are; features: (n, D) in scaled units.

    New points from where the data is from are as far from it as a row is from the others, so that such a point has a
    score below 1 with the probability EDGE. A single row has no neighbour: its edge is a lengthscale away.
    """
    if len(features) < 2:
        return 1.0
    nearest = cKDTree(features).query(features, k=2)[0][:, 1]
    return float(np.quantile(nearest, EDGE)) or 1.0
