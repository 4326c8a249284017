"""The marginal likelihood of a Gaussian process, its gradient by hand, and the factors that predict; numpy and LAPACK.

A fit compiles nothing: its matrices have the size of the data, and each is touched a block of rows at a time, so that
what is computed of them stays in the CPU's cache.

Notation: theta = log (l: (d,), s2, e): lengthscales, output scale, noise variance; A = F / l; K = s2 (k(r2) + NUGGET I)
+ diag(s), with s the noise of each place; L L' = K; a = K^-1 z; W = K^-1 - a a'. Only lower triangles are filled.

Source: Rasmussen & Williams (2006), eqs. 2.25, 2.26, 2.30, 5.9.
"""

from typing import Any, NamedTuple

import numpy as np

from surrogate_core.blas import blas_threads
from surrogate_core.surrogates import lapack
from surrogate_core.surrogates.kernels import KERNELS
from surrogate_core.surrogates.training import Training

BLOCK = 128
_TRIANGLE = np.tri(BLOCK)
# Part of s2 on K's diagonal beside the noise: without it predictions are lost in rounding where s2 is 1e12 times e.
NUGGET = 1e-11
JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)  # parts of s2 added to the diagonal in turn until the factorization succeeds


class Factors(NamedTuple):
    """a: (n,), the inverse of L: (n, n), and the jitter that it took."""

    a: np.ndarray
    L_inverse: np.ndarray
    jitter: float


def log_likelihood(kernel: str, theta: np.ndarray, rows: Training) -> tuple[float, np.ndarray]:
    """Log marginal likelihood of all rows and its gradient by theta; -inf where K is not positive definite.

    The gradient is -1/2 tr(W dK) (eq. 5.9), with dK/dlog l_j = s2 h(r2) D_j^2 / l_j^2. Summed over all pairs by two
    matrix products, it needs no (n, n, d) array; and tr(W K) = n - z'a spares the sum over K for s2.
    """
    n, d = rows.U.shape
    l, s2, e = np.exp(theta[:d]), np.exp(theta[d]), np.exp(theta[d + 1])
    A = rows.F / l[rows.group]
    K, H = _lower(kernel, A, s2)
    learned = np.isnan(rows.known)
    s = noise_of(rows, e)
    K.flat[:: n + 1] += s + NUGGET * s2
    a, half_log_det = solve_and_invert(K, rows.z)
    if a is None:
        return -np.inf, np.zeros_like(theta)
    A1 = np.column_stack([A, np.ones(n)])
    GA = np.zeros_like(A1)
    for i in range(0, n, BLOCK):
        j = min(i + BLOCK, n)
        G = np.multiply.outer(a[i:j], a[:j])
        np.subtract(K[i:j, :j], G, out=G)
        G *= H[i:j, :j]
        G[:, i:] *= _TRIANGLE[: j - i, : j - i]
        GA[i:j] += G @ A1[:j]
        GA[:j] += G.T @ A1[i:j]
    by_F = GA[:, -1] @ A**2 - np.einsum("ij,ij->j", A, GA[:, :-1])
    w = K.diagonal() - a**2
    by_s2 = n - rows.z @ a - w @ s
    value = 0.5 * rows.z @ a + half_log_det + 0.5 * n * np.log(2 * np.pi)
    extra, by_e = of_repeats(rows, e)
    by_l = np.bincount(rows.group, by_F, minlength=d)
    return -float(value + extra), -np.array([*by_l, 0.5 * by_s2, 0.5 * w[learned] @ s[learned] + by_e])


def factorize(kernel: str, theta: np.ndarray, rows: Training) -> Factors:
    """The factors that predict.

    Raises:
        ValueError: no jitter makes K positive definite.
    """
    n, d = rows.U.shape
    s2 = np.exp(theta[d])
    with blas_threads(n):
        K, _ = _lower(kernel, rows.F / np.exp(theta[rows.group]), s2)
        K.flat[:: n + 1] += noise_of(rows, np.exp(theta[d + 1])) + NUGGET * s2
        found, jitter = inverse_factor(K, s2)
        return Factors(found.T @ (found @ rows.z), found, jitter)


def inverse_factor(K: np.ndarray, size: float | np.ndarray) -> tuple[np.ndarray, float]:
    """The inverse of L of a matrix whose lower triangle is given, and the least jitter with which there is one.

    Args:
        K: (n, n).
        size: of the diagonal, without noise; so many times the jitter is added to it.

    Raises:
        ValueError: no jitter makes K positive definite.
    """
    for jitter in JITTERS:
        inverse = K.copy()
        inverse.flat[:: len(K) + 1] += jitter * size
        if lapack.cholesky(inverse) and lapack.inverse_of_factor(inverse) and np.isfinite(np.tril(inverse)).all():
            return np.tril(inverse), jitter
    raise ValueError(f"fit: expected a covariance that can be factored, got none with a jitter of {JITTERS[-1]:g}")


def solve_and_invert(K: np.ndarray, z: np.ndarray) -> tuple[np.ndarray | None, float]:
    """a and half the log determinant; K's lower triangle becomes that of its inverse. None where there is none."""
    if not lapack.cholesky(K):
        return None, np.inf
    half_log_det = float(np.log(K.diagonal()).sum())
    inverted = lapack.inverse_of_factored(K)
    a = lapack.times_symmetric(K, z)
    return (a if inverted and np.isfinite(a).all() else None), half_log_det


def noise_of(rows: Training, e: Any) -> np.ndarray:
    """(n,) noise variance of each place: as given, else that of a mean of so many rows; (S, n) of e: (S, 1)."""
    return np.where(np.isnan(rows.known), e / rows.count, rows.known)


def of_repeats(rows: Training, e: Any) -> tuple[Any, Any]:
    """What the scatter of merged rows adds to the negative log likelihood, and to its derivative by log e."""
    if not rows.repeats:
        return 0.0 * e, 0.0 * e
    value = rows.repeats * np.log(2 * np.pi * e) + np.log(rows.count).sum() + rows.scatter / e
    return 0.5 * value, 0.5 * (rows.repeats - rows.scatter / e)


def _lower(kernel: str, A: np.ndarray, s2: float) -> tuple[np.ndarray, np.ndarray]:
    """s2 k and s2 h between all rows, of which the lower triangles are filled."""
    n, pair = len(A), KERNELS[kernel][0]
    K, H = np.empty((n, n)), np.empty((n, n))
    squares = np.einsum("ij,ij->i", A, A)
    for i in range(0, n, BLOCK):
        j = min(i + BLOCK, n)
        r2 = A[i:j] @ A[:j].T
        r2 *= -2.0
        r2 += squares[i:j, None]
        r2 += squares[:j]
        np.maximum(r2, 0.0, out=r2)
        r2[np.arange(j - i), np.arange(i, j)] = 0.0
        k, h = pair(np, r2)
        np.multiply(k, s2, out=K[i:j, :j])
        np.multiply(h, s2, out=H[i:j, :j])
    return K, H
