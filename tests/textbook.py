"""What the tests of the Gaussian process hold it against: kernels and covariances by their formulas, in plain numpy."""

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from surrogate_core import SearchSpace
from surrogate_core.surrogates.likelihood import NUGGET

CUBE = SearchSpace.from_bounds([(0, 1)] * 2)
KERNELS = ("matern52", "matern32", "matern12", "rbf")
THETAS = np.log([[0.3, 0.7, 1.3, 1e-3], [0.05, 3.0, 0.2, 1e-1], [2.0, 2.0, 30.0, 1e-4]])


def wavy(U: np.ndarray) -> np.ndarray:
    return np.sin(5 * U[:, 0]) + U[:, 1] ** 2


def slopes(U: np.ndarray) -> np.ndarray:
    """The gradient of `wavy`."""
    return np.column_stack([5 * np.cos(5 * U[:, 0]), 2 * U[:, 1]])


def textbook(xp: Any, kernel: str, r: Any) -> Any:
    """Rasmussen & Williams (2006), eqs. 4.9, 4.17, by the scaled distance."""
    if kernel == "rbf":
        return xp.exp(-(r**2) / 2)
    if kernel == "matern12":
        return xp.exp(-r)
    if kernel == "matern32":
        return (1 + np.sqrt(3) * r) * xp.exp(-np.sqrt(3) * r)
    return (1 + np.sqrt(5) * r + 5 * r**2 / 3) * xp.exp(-np.sqrt(5) * r)


def covariance(kernel: str, theta: np.ndarray, F: np.ndarray, group: Any = slice(None)) -> np.ndarray:
    """Of the noise-free z, with the nugget of each place."""
    *l, s2, _ = np.exp(theta)
    A = F / np.array(l)[group]
    r = cdist(A, A)
    return s2 * (textbook(np, kernel, r) + NUGGET * (r == 0))
