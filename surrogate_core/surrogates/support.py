"""Where the data is, by a surrogate's own measure of distance, and how far beyond it a point lies."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.spatial import cKDTree

from surrogate_core.surrogates.kernels import choice_at
from surrogate_core.surrogates.output import AnyArray

EDGE = 0.95  # of the rows, this part is nearer to another row than the edge of the data


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


def edge_of(features: np.ndarray) -> float:
    """The distance to its nearest neighbour below which EDGE of the rows are; features: (n, D) in scaled units.

    New points from where the data is from are as far from it as a row is from the others, so that such a point has a
    score below 1 with the probability EDGE. A single row has no neighbour: its edge is a lengthscale away.
    """
    if len(features) < 2:
        return 1.0
    nearest = cKDTree(features).query(features, k=2)[0][:, 1]
    return float(np.quantile(nearest, EDGE)) or 1.0
