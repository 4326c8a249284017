"""The marginal likelihood of many hyperparameters at once, where rows are few: by pairs of rows, each pair once.

`likelihood` has the same for one theta and any rows, of which it never holds what depends on all pairs and variables.

Notation: theta: (S, d + 2), as in `likelihood`; m = n (n - 1) / 2 pairs; D2: (d, m) squared differences of a variable.

Source: Rasmussen & Williams (2006), eqs. 2.30 and 5.9.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

import numpy as np
from cachetools import LRUCache
from scipy.linalg.blas import dtrsv

from surrogate_core.surrogates import lapack
from surrogate_core.surrogates.kernels import KERNELS
from surrogate_core.surrogates.likelihood import NUGGET, noise_of, of_repeats, solve_and_invert
from surrogate_core.surrogates.training import Training

LARGEST = 2.0**26  # bytes of distances that are kept, of one dataset


class Distances:
    """Squared differences of rows that are learned again and again, as by specs that are compared on the same folds."""

    def __init__(self) -> None:
        self._known: LRUCache[tuple[bytes, bytes], np.ndarray] = LRUCache(LARGEST, lambda D2: D2.nbytes)
        self._lock = Lock()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Another process computes them for itself."""
        return Distances, ()

    def of(self, rows: Training) -> np.ndarray:
        """(d, m)."""
        key = rows.F.tobytes(), rows.group.tobytes()
        with self._lock:
            known = self._known.get(key)
        if known is None:
            known = _squared_differences(rows)
            if known.nbytes <= LARGEST:
                with self._lock:
                    self._known[key] = known
        return known


_shared: ContextVar[Distances | None] = ContextVar("distances", default=None)


@contextmanager
def shared(distances: Distances | None) -> Iterator[None]:
    """Within it, fits take the distances that are known already."""
    token = _shared.set(distances)
    try:
        yield
    finally:
        _shared.reset(token)


def _squared_differences(rows: Training) -> np.ndarray:
    i, j = np.tril_indices(len(rows.F), -1)
    differences = (rows.F[i] - rows.F[j]).T ** 2
    return np.stack([differences[rows.group == one].sum(axis=0) for one in range(rows.U.shape[1])])


class FewRows:
    """Rows, prepared.

    Args:
        kernel: of the process. rows: a few, of which the values alone are learned.
    """

    def __init__(self, kernel: str, rows: Training):
        self.pair, self.rows = KERNELS[kernel][0], rows
        n = len(rows.U)
        self.i, self.j = np.tril_indices(n, -1)
        self.below, self.above = self.i * n + self.j, self.j * n + self.i
        known = _shared.get()
        self.D2 = _squared_differences(rows) if known is None else known.of(rows)

    def log_likelihoods(self, theta: np.ndarray) -> np.ndarray:
        """(S,); -inf where K is not positive definite."""
        K = self._covariances(theta)[0]
        found = np.full(len(K), -np.inf)
        for one, L in enumerate(K):
            if lapack.cholesky(L):
                w = dtrsv(L.T, self.rows.z, lower=0, trans=1)
                found[one] = -0.5 * w @ w - np.log(L.diagonal()).sum()
        return self._whole(theta, found)[0]

    def with_gradients(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log likelihoods, (S,), and their gradients, (S, d + 2), 0 where there is none."""
        z, d = self.rows.z, len(self.D2)
        K, h, s = self._covariances(theta)
        a, found = np.zeros(s.shape), np.full(len(K), -np.inf)
        for one, inverse in enumerate(K):
            solved, half_log_det = solve_and_invert(inverse, z)
            if solved is not None:
                a[one], found[one] = solved, -0.5 * z @ solved - half_log_det
        found, by_e = self._whole(theta, found)
        G = K.reshape(len(K), -1).take(self.below, axis=1)
        G -= a.take(self.i, axis=1) * a.take(self.j, axis=1)
        G *= h
        w = np.diagonal(K, axis1=1, axis2=2) - a**2
        by_s2 = len(z) - a @ z - (w * s).sum(axis=1)
        learned = np.isnan(self.rows.known)
        by_e += 0.5 * (w * s)[:, learned].sum(axis=1)
        gradients = -np.column_stack([G @ self.D2.T * np.exp(-2 * theta[:, :d]), 0.5 * by_s2, by_e])
        gradients[np.isneginf(found)] = 0.0
        return found, gradients

    def information(self, theta: np.ndarray) -> np.ndarray:
        """Fisher information: (S, d + 2, d + 2), the curvature of the negative log likelihood that is to be expected.

        I_ij = 1/2 tr(K^-1 dK/dtheta_i K^-1 dK/dtheta_j), which is eq. 5.9 differentiated once more and averaged over
        the data that the process would give; 0 where K is not positive definite.
        """
        n, d = self.rows.U.shape
        K, h, s = self._covariances(theta)
        found = np.zeros((len(K), d + 2, d + 2))
        slopes = np.zeros((d + 2, n * n))
        for one, inverse in enumerate(K):
            s2 = np.exp(theta[one, d])
            slopes[:d, self.below] = h[one] * self.D2 * np.exp(-2 * theta[one, :d, None])
            slopes[d, self.below] = inverse.ravel()[self.below]
            slopes[:, self.above] = slopes[:, self.below]
            slopes[d, :: n + 1] = s2
            slopes[d + 1, :: n + 1] = np.where(np.isnan(self.rows.known), s[one], 0.0)
            if lapack.cholesky(inverse) and lapack.inverse_of_factored(inverse):
                inverse.flat[self.above] = inverse.flat[self.below]
                parts = inverse @ slopes.reshape(d + 2, n, n)
                found[one] = 0.5 * parts.reshape(d + 2, -1) @ parts.transpose(0, 2, 1).reshape(d + 2, -1).T
        found[:, -1, -1] += 0.5 * self.rows.repeats
        return found

    def _covariances(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """K, (S, n, n), of which lower triangles are filled; s2 h of pairs, (S, m); noise, (S, n)."""
        n, d = self.rows.U.shape
        s2 = np.exp(theta[:, d, None])
        k, h = self.pair(np, np.exp(-2 * theta[:, :d]) @ self.D2)
        s = noise_of(self.rows, np.exp(theta[:, d + 1, None]))
        K = np.empty((len(theta), n * n))
        K[:, self.below] = s2 * k
        K[:, :: n + 1] = s2 * (1 + NUGGET) + s
        return K.reshape(-1, n, n), s2 * h, s

    def _whole(self, theta: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """With what is the same for all lengthscales, and the derivative of that by log e, its sign turned."""
        extra, by_e = of_repeats(self.rows, np.exp(theta[:, -1]))
        return value - 0.5 * len(self.rows.z) * np.log(2 * np.pi) - extra, by_e
