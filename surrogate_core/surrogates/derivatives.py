"""Learning from derivatives: the exact joint covariance of a function's values and their gradients.

Notation: D_j = (u - u')_j / l_j^2. The value at a place and its d derivatives are neighbours in a vector.

    cov(f, f') = s2 k
    cov(f, df'/du'_j) = s2 h D_j
    cov(df/du_i, df'/du'_j) = s2 (h [i = j] / l_i^2 - q D_i D_j)

The gradient of the likelihood is 1/2 tr(W dK) as for values alone, with dK by JAX: nothing is differentiated through
the factorization. A derivative is as uncertain as the value's noise makes it over a lengthscale: its variance is
e / l_j^2.

Source: Solak, Murray-Smith, Leithead, Leith & Rasmussen (2003), NIPS 15, "Derivative observations in Gaussian process
models of dynamic systems"; Rasmussen & Williams (2006), section 9.4.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from surrogate_core.blas import blas_threads
from surrogate_core.precision import float64
from surrogate_core.surrogates.kernels import covariance, curvature, slope
from surrogate_core.surrogates.likelihood import NUGGET, Factors, inverse_factor, of_repeats, solve_and_invert
from surrogate_core.surrogates.support import bucket
from surrogate_core.surrogates.training import Training


@float64
def joint_log_likelihood(kernel: str, theta: np.ndarray, rows: Training) -> tuple[float, np.ndarray]:
    """Log marginal likelihood of values and derivatives and its gradient by theta, as `likelihood.log_likelihood`."""
    known, z, arguments = _arguments(rows)
    K = np.array(_joint(kernel, theta, *arguments))[np.ix_(known, known)]
    a, half_log_det = solve_and_invert(K, z)
    if a is None:
        return -np.inf, np.zeros_like(theta)
    lower = np.tril(K)
    W = np.zeros((len(known),) * 2)
    W[np.ix_(known, known)] = lower + np.tril(K, -1).T - np.outer(a, a)
    by_theta = np.array(_pull(kernel, theta, W, *arguments))
    value = 0.5 * z @ a + half_log_det + 0.5 * len(z) * np.log(2 * np.pi)
    extra, by_e = of_repeats(rows, np.exp(theta[-1]))
    by_theta[-1] += by_e
    return -float(value + extra), -by_theta


def joint_factors(kernel: str, theta: np.ndarray, rows: Training) -> Factors:
    """The factors that predict: a: (n, 1 + d) and the inverse of L: (n (1 + d),) * 2, 0 where nothing is known.

    Raises:
        ValueError: no jitter makes K positive definite.
    """
    known, z, arguments = _arguments(rows)
    n, d = rows.U.shape
    K = np.array(_joint(kernel, theta, *arguments))[np.ix_(known, known)]
    with blas_threads(len(z)):
        inverse, jitter = inverse_factor(K, np.diag(K))
        a, whole = np.zeros(len(known)), np.zeros((len(known),) * 2)
        a[known] = inverse.T @ (inverse @ z)
        whole[np.ix_(known, known)] = inverse
    m = n * (1 + d)
    return Factors(a[:m].reshape(n, 1 + d), whole[:m, :m], jitter)


def _arguments(rows: Training) -> tuple[np.ndarray, np.ndarray, tuple[Any, ...]]:
    """Which parts are known, (N (1 + d),), their values, and what `_joint` takes; padded to a size compiled once."""
    n, d = rows.U.shape
    N = bucket(n)
    assert rows.slopes is not None
    parts = np.full((N, 1 + d), np.nan)
    parts[:n] = np.column_stack([rows.z, rows.slopes])
    F, known, count = np.zeros((N, rows.F.shape[1])), np.full(N, np.nan), np.ones(N)
    F[:n], known[:n], count[:n] = rows.F, rows.known, rows.count
    of = np.eye(d)[rows.group]  # (D, d): which variable a feature is of
    numeric = of * (np.bincount(rows.group, minlength=d)[rows.group] == 1)[:, None]
    some = ~np.isnan(parts.ravel())
    return some, parts.ravel()[some], (F, of, numeric, known, count)


@partial(jax.jit, static_argnums=0)
def _joint(kernel: str, theta: Array, F: Array, of: Array, numeric: Array, known: Array, count: Array) -> Array:
    d = of.shape[1]
    N = len(F)
    l, s2, e = jnp.exp(theta[:d]), jnp.exp(theta[d]), jnp.exp(theta[d + 1])
    A = F / (of @ l)
    squares = jnp.sum(A**2, axis=1)
    r2 = jnp.maximum(squares[:, None] + squares - 2 * A @ A.T, 0.0) * (1 - jnp.eye(N))
    k, h, q = s2 * covariance(kernel, r2), s2 * slope(kernel, r2), s2 * curvature(kernel, r2)
    U = F @ numeric
    D = (U[:, None] - U[None]) / l**2  # (N, N, d); 0 along a categorical variable
    top = jnp.concatenate([k[..., None], h[..., None] * D], axis=2)[:, :, None, :]
    inner = h[..., None, None] * jnp.diag(l**-2.0) - q[..., None, None] * D[..., :, None] * D[..., None, :]
    rest = jnp.concatenate([-(h[..., None] * D)[..., None], inner], axis=3)
    K = jnp.concatenate([top, rest], axis=2)  # (N, N', i, j)
    s = jnp.where(jnp.isnan(known), e / count, known)
    noise = s[:, None] * jnp.concatenate([jnp.ones(1), l**-2.0])
    K = K.transpose(0, 2, 1, 3).reshape(N * (1 + d), -1)
    return K + jnp.diag(noise.ravel() + NUGGET * jnp.diag(K))


@partial(jax.jit, static_argnums=0)
def _pull(kernel: str, theta: Array, W: Array, *arguments: Array) -> Array:
    return jax.vjp(lambda theta: _joint(kernel, theta, *arguments), theta)[1](0.5 * W)[0]
