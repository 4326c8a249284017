"""Exact Gaussian process regression with one lengthscale a dimension (ARD), fitted by maximum a posteriori.

Notation: U: (N, d) unit-cube rows, padded from n to N; z: (N,) standardized values; w: (N,) 1 for a row, 0 for padding;
l: (d,) lengthscales; s2: output scale; e: noise variance; K = s2 C + e I; L L' = K; a = K^-1 z. A padded row is
independent of all others and has unit variance, so that it changes neither likelihood nor prediction.

Two choices of a categorical variable are at distance 1, whichever they are. F: (N, D) are features whose Euclidean
distance is that one: an indicator a choice, times sqrt(1/2); of a number its coordinate. group: (D,) is the variable
that each belongs to.

Sources: Rasmussen & Williams, "Gaussian Processes for Machine Learning" (2006), eqs. 2.25, 2.26, 2.30, 5.9; priors
scaled by dimension: Hvarfner et al. (2024), arXiv:2402.02229, section 4.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

from surrogate_core.dataset import Dataset
from surrogate_core.precision import float64
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate, bucket
from surrogate_core.surrogates.output import AnyArray, Output, Transform, fit_output, to_latent

Kernel = Literal["matern52", "matern32", "matern12", "rbf", "matern"]
Prior = Literal["dimension_scaled", "flat"]

# Bounds of l, s2 and e in unit-cube and standardized coordinates. The least noise keeps K well conditioned.
BOUNDS = ((5e-3, 2e2), (1e-3, 1e3), (1e-8, 1.0))
# The posterior has many modes: of so many draws a start, this far from the prior in log units, the best are followed.
SCREENED, SPREAD = 8, 1.5
SMALL = 512  # rows below which linear algebra is done by one thread
JITTERS = (0.0, 1e-8, 1e-6, 1e-4)  # added to the diagonal in turn until the factorization succeeds


class GPState(NamedTuple):
    U: AnyArray
    n_choices: AnyArray
    w: AnyArray
    a: AnyArray
    L_inverse: AnyArray
    lengthscales: AnyArray
    output_scale: AnyArray
    noise: AnyArray
    output: Output


@dataclass(frozen=True)
class GPSurrogate(Surrogate):
    """Gaussian process regression.

    Args:
        transform: "standardize", or "log" for positive values that span magnitudes.
        kernel: "matern52", "matern32", "matern12" or "rbf"; "matern" is "matern52".
        prior: on the logarithms of the hyperparameters: "dimension_scaled" (Hvarfner et al. 2024) or "flat".
        length_scale: the first start's lengthscale in unit-cube units; by default the prior's mode.
        noise_level: the first start's noise variance in standardized units.
        n_starts: starts of the hyperparameter search, one from the prior's mode, the others the best of many draws.
        max_iterations: L-BFGS-B iterations a start.

    Raises:
        ValueError: a value is out of its range.
    """

    kind: ClassVar[str] = "gaussian_process"
    State: ClassVar[type] = GPState

    kernel: Kernel = "matern52"
    prior: Prior = "dimension_scaled"
    length_scale: float | None = None
    noise_level: float | None = None
    n_starts: int = 8
    max_iterations: int = 200

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), np.generic):
                object.__setattr__(self, field.name, value.item())  # as a model's file can hold it
        for name, known in (("transform", Transform), ("kernel", Kernel), ("prior", Prior)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name}: expected one of {', '.join(get_args(known))}, got {getattr(self, name)!r}")
        for name in ("n_starts", "max_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected an integer >= 1, got {getattr(self, name)!r}")
        for name, (low, high) in (("length_scale", BOUNDS[0]), ("noise_level", BOUNDS[2])):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")

    @float64
    def fit(self, dataset: Dataset, key: Array | None = None) -> FittedSurrogate:
        rows = dataset.ok
        if rows.n_samples == 0:
            raise ValueError(f"fit: expected at least one ok row, got none among {dataset.n_samples}")
        output = fit_output(self.transform, rows.y)
        n, d, N = rows.n_samples, rows.n_dims, bucket(rows.n_samples)
        U = np.zeros((N, d))
        U[:n] = rows.space.encode(rows.X)
        z = np.zeros(N)
        z[:n] = to_latent(self.transform, output, rows.y)
        w = (np.arange(N) < n).astype(float)
        F, group = _features(U, rows.space.n_choices)

        mean, precision = self._log_prior(d)
        low, high = np.log([*[BOUNDS[0]] * d, BOUNDS[1], BOUNDS[2]]).T
        generator = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.key(0) if key is None else key)))
        drawn = mean + generator.standard_normal((SCREENED * self.n_starts, d + 2)) * SPREAD
        drawn = np.clip(drawn, low, high)
        first = mean.copy()
        if self.length_scale is not None:
            first[:d] = np.log(self.length_scale)
        if self.noise_level is not None:
            first[d + 1] = np.log(self.noise_level)

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = negative_log_posterior(self.kernel, theta, F, group, z, w, mean, precision)
            if not np.isfinite(value):  # not positive definite here: a wall that the line search steps back from
                return 1e25, np.zeros_like(theta)
            return float(value), np.asarray(gradient)

        bounds = list(zip(low, high, strict=True))
        options = {"maxiter": self.max_iterations}
        # JAX's factorizations are OpenBLAS's, whose threads cost a small matrix much more than they do for it.
        with _blas().limit(limits=1 if N < SMALL else None):
            screened = np.argsort([loss(theta)[0] for theta in drawn], kind="stable")
            starts = [np.clip(first, low, high), *drawn[screened[: self.n_starts - 1]]]
            ends = [
                minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options) for start in starts
            ]
            best = min(ends, key=lambda end: end.fun)
            for jitter in JITTERS:
                L_inverse, a = _factor(self.kernel, best.x, F, group, z, w, jitter)
                if np.isfinite(a).all():
                    break
            else:
                raise ValueError("fit: expected a covariance that can be factored, got none with a jitter of 1e-4")
        lengthscales, output_scale, noise = np.exp(best.x[:d]), np.exp(best.x[d]), np.exp(best.x[d + 1]) + jitter
        state = GPState(U, rows.space.n_choices, w, a, L_inverse, lengthscales, output_scale, noise, output)
        state = jax.tree.map(np.asarray, state)  # no array of 64 bits leaves this scope as JAX's
        diagnostics = {
            "n_rows": n,
            "negative_log_posterior": float(best.fun),
            "start_values": [float(end.fun) for end in ends],
            "iterations": [int(end.nit) for end in ends],
            "jitter": jitter,
            "lengthscales": dict(zip(rows.space.names, lengthscales.tolist(), strict=True)),
            "output_scale": float(output_scale),
            "noise": float(noise),
        }
        return FittedSurrogate(self, rows.space, state, diagnostics)

    def latent(self, state: GPState, u: Array) -> tuple[Array, Array]:
        m = state.n_choices
        apart = jnp.minimum(jnp.floor(u * m), m - 1) != jnp.floor(state.U * m)
        delta = jnp.where(m > 0, apart, u - state.U) / state.lengthscales
        k = state.output_scale * _KERNELS[self.kernel][0](jnp.sum(delta**2, axis=1)) * state.w
        b = state.L_inverse @ k
        return k @ state.a, jnp.maximum(state.output_scale - b @ b, 1e-12 * state.output_scale)

    def noise(self, state: GPState) -> Array:
        return state.noise

    @property
    def traced(self) -> "GPSurrogate":
        return GPSurrogate(transform=self.transform, kernel=self.kernel)

    def _log_prior(self, d: int) -> tuple[np.ndarray, np.ndarray]:
        """Means and precisions of the normal priors on log l, log s2 and log e; precision 0 is flat.

        Lengthscales as in the paper. The noise prior is our own and wider: a simulator has none, and the paper's
        LogNormal(-4, 1) would keep it from being found.
        """
        scaled = np.sqrt(2) + np.log(d) / 2 if self.prior == "dimension_scaled" else np.log(0.5)
        mean = np.array([*[scaled] * d, 0.0, np.log(1e-4)])
        deviation = np.array([*[np.sqrt(3)] * d, 1.0, 3.0])
        return mean, deviation**-2.0 if self.prior == "dimension_scaled" else np.zeros(d + 2)


@partial(jax.jit, static_argnums=0)
def negative_log_posterior(
    kernel: Kernel, theta: Array, F: Array, group: Array, z: Array, w: Array, mean: Array, precision: Array
) -> tuple[Array, Array]:
    """Negative log posterior of theta = log (l, s2, e), up to the prior's constant, and its gradient.

    The gradient is 1/2 tr((K^-1 - a a') dK) (Rasmussen & Williams, eq. 5.9), with dK/dlog l_j = s2 h(r2) D_j^2 / l_j^2
    where h = -2 dk/dr2. Summed over all pairs by two matrix products, it needs no (N, N, d) array.
    """
    d = len(theta) - 2
    l, s2, e = jnp.exp(theta[:d]), jnp.exp(theta[d]), jnp.exp(theta[d + 1])
    A = F / l[group]
    r2, pairs = _squared_distances(A), jnp.outer(w, w)
    k, h = _KERNELS[kernel]
    C = s2 * k(r2) * pairs
    L = jnp.linalg.cholesky(C + jnp.diag(e * w + (1 - w)))
    a = cho_solve((L, True), z)
    value = 0.5 * z @ a + jnp.sum(jnp.log(jnp.diag(L))) + 0.5 * jnp.sum(w) * jnp.log(2 * jnp.pi)
    W = (cho_solve((L, True), jnp.eye(len(z))) - jnp.outer(a, a)) * pairs
    G = W * s2 * h(r2)
    by_l = jnp.zeros(d).at[group].add(G.sum(axis=1) @ A**2 - jnp.sum(A * (G @ A), axis=0))
    gradient = jnp.concatenate([by_l, 0.5 * jnp.array([jnp.sum(W * C), e * jnp.trace(W)])])
    off = theta - mean
    return value + 0.5 * off @ (precision * off), gradient + precision * off


@partial(jax.jit, static_argnums=0)
def _factor(
    kernel: Kernel, theta: Array, F: Array, group: Array, z: Array, w: Array, jitter: float
) -> tuple[Array, Array]:
    d = len(theta) - 2
    C = jnp.exp(theta[d]) * _KERNELS[kernel][0](_squared_distances(F / jnp.exp(theta[group]))) * jnp.outer(w, w)
    L = jnp.linalg.cholesky(C + jnp.diag((jnp.exp(theta[d + 1]) + jitter) * w + (1 - w)))
    return solve_triangular(L, jnp.eye(len(z)), lower=True), cho_solve((L, True), z)


def _features(U: np.ndarray, n_choices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F and group of unit-cube rows."""
    columns, group = [], []
    for j, m in enumerate(n_choices.astype(int)):
        u = U[:, j]
        columns += [np.sqrt(0.5) * (np.floor(u * m) == choice) for choice in range(m)] or [u]
        group += [j] * max(1, m)
    return np.column_stack(columns), np.array(group)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _squared_distances(A: Array) -> Array:
    squares = jnp.sum(A**2, axis=1)
    r2 = jnp.maximum(squares[:, None] + squares[None, :] - 2 * A @ A.T, 0.0)
    return r2 * (1 - jnp.eye(len(A)))  # exactly 0 with itself


def _root(r2: Array) -> Array:
    return jnp.sqrt(r2 + 1e-30)  # its derivative at 0 is finite, and meets a factor of 0 there


# Each kernel as a function k of the squared scaled distance r2, and h = -2 dk/dr2.
_Function = Callable[[Array], Array]
_KERNELS: dict[str, tuple[_Function, _Function]] = {
    "matern52": (
        lambda r2: (1 + jnp.sqrt(5) * _root(r2) + 5 / 3 * r2) * jnp.exp(-jnp.sqrt(5) * _root(r2)),
        lambda r2: 5 / 3 * (1 + jnp.sqrt(5) * _root(r2)) * jnp.exp(-jnp.sqrt(5) * _root(r2)),
    ),
    "matern32": (
        lambda r2: (1 + jnp.sqrt(3) * _root(r2)) * jnp.exp(-jnp.sqrt(3) * _root(r2)),
        lambda r2: 3 * jnp.exp(-jnp.sqrt(3) * _root(r2)),
    ),
    "matern12": (
        lambda r2: jnp.exp(-_root(r2)),
        lambda r2: jnp.where(r2 > 0, jnp.exp(-_root(r2)) / _root(r2), 0.0),  # 0 at 0, where it meets a D of 0
    ),
    "rbf": (
        lambda r2: jnp.exp(-r2 / 2),
        lambda r2: jnp.exp(-r2 / 2),
    ),
}
_KERNELS["matern"] = _KERNELS["matern52"]
