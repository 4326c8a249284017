"""Draws of whole functions from the posterior of a Gaussian process: differentiable, and each the same wherever asked.

A draw is one of the prior, by random Fourier features, and a correction that has it meet the data; the correction is
exact, so that no draw is starved of variance near many rows. Each draw has features of its own: over draws, their
covariance is then that of the kernel without an error.

Notation: S draws of M features each; w: (S, M, d) frequencies; c: (S, 2 M) weights.

Sources: Wilson, Borovitskiy, Terenin, Mostowsky & Deisenroth (2020), arXiv:2002.09309, eq. 13; Rahimi & Recht (2007),
NIPS 20, for the features; the spectral density of a Matérn kernel is that of Student's t (Rasmussen & Williams 2006,
eq. 4.15).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from surrogate_core.precision import float64
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.base import evaluate, program
from surrogate_core.surrogates.gaussian_process import GPState, GPSurrogate
from surrogate_core.surrogates.kernels import choice_at
from surrogate_core.surrogates.output import AnyArray, from_latent_traced

DEGREES = {"matern12": 1, "matern32": 3, "matern52": 5, "matern": 5}  # 2 nu, of freedom


class Paths(NamedTuple):
    """What tells draws apart.

    frequencies: (S, M, d) of the numeric variables; of_choices: (C, S, M, m) of the m choices of C categorical ones;
    weights: (S, 2 M); corrections: (S, N), or (S, N, 1 + d) with derivatives in the data.
    """

    frequencies: AnyArray
    of_choices: AnyArray
    weights: AnyArray
    corrections: AnyArray


class FunctionDraws:
    """Functions drawn from a posterior; called with points, they give their values in the problem's units.

    Args:
        spec, space, state: of the surrogate. paths: of the draws.
    """

    def __init__(self, spec: GPSurrogate, space: SearchSpace, state: GPState, paths: Paths):
        self.spec, self.space, self.state, self.paths = spec, space, state, paths

    @property
    def n_draws(self) -> int:
        return len(self.paths.weights)

    def __call__(self, X: Any) -> np.ndarray:
        """Value of each draw: (S,) of one point, (n, S) of points (n, d)."""
        return evaluate(_values, self.spec, self.space, (self.state, self.paths), X)

    def gradient(self, X: Any) -> np.ndarray:
        """Gradient of each draw in the problem's units: (S, d) of one point, (n, S, d) of points."""
        told = evaluate(_gradients, self.spec, self.space, (self.state, self.paths), X)
        return told * np.expand_dims(self.space.slope(X), -2)


@float64
def draw_functions(
    spec: GPSurrogate, space: SearchSpace, state: GPState, n_draws: int, key: Array, n_features: int
) -> FunctionDraws:
    """Draws functions from the posterior of the noise-free function.

    Args:
        spec, space, state: of the surrogate. n_draws: S. key: a `jax.random.key`. n_features: M.

    Raises:
        ValueError: there is nothing to draw.
    """
    for name, value in (("n_draws", n_draws), ("n_features", n_features)):
        if value < 1:
            raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    S, M, d = n_draws, n_features, space.n_dims
    w = rng.standard_normal((S, M, d))
    of_choices = rng.standard_normal((len(state.categories), S, M, int(space.n_choices.max())))
    if spec.kernel in DEGREES:
        nu = DEGREES[spec.kernel]
        tail = np.sqrt(nu / rng.chisquare(nu, (S, M, 1)))
        w, of_choices = w * tail, of_choices * tail
    c = rng.standard_normal((S, 2 * M)) * np.sqrt(state.output_scale / M)
    paths = Paths(w, of_choices, c, np.zeros((S, *np.shape(state.a))))
    carried = state, paths
    off = np.asarray(_priors(spec.traced, carried, state.U)).T  # (S, N)
    deviation = np.sqrt(np.where(np.isfinite(state.s), state.s, 0.0))
    if state.a.ndim == 2:
        slopes = np.moveaxis(np.asarray(_prior_slopes(spec.traced, carried, state.U)), 1, 0)  # (S, N, d)
        off = np.concatenate([off[..., None], slopes], axis=2)
        deviation = deviation[:, None] * np.append(1.0, 1 / state.lengthscales)
    noise = deviation * rng.standard_normal(off.shape)
    if state.is_sparse:
        solved = (off @ state.L_inverse.T + noise) @ state.L_inverse
    else:
        solved = ((off + noise).reshape(S, -1) @ state.L_inverse.T) @ state.L_inverse
    return FunctionDraws(spec, space, state, paths._replace(corrections=state.a - solved.reshape(S, *state.a.shape)))


def _prior(state: GPState, paths: Paths, u: Array) -> Array:
    """(S,): what each draw of the prior is at u."""
    m = state.n_choices
    angle = paths.frequencies @ jnp.where(m > 0, 0.0, (u - 0.5) / state.lengthscales)
    for c in range(len(state.categories)):
        j = state.categories[c]
        choice = choice_at(u[j], m[j]).astype(int)
        angle = angle + paths.of_choices[c][:, :, choice] * jnp.sqrt(0.5) / state.lengthscales[j]
    return jnp.sum(paths.weights * jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1), axis=1)


def _paths_at(spec: GPSurrogate, carried: tuple[GPState, Paths], u: Array) -> Array:
    """(S,): each draw at u, in the problem's units."""
    state, paths = carried
    k = spec.covariances(state, u)
    z = _prior(state, paths, u) + paths.corrections.reshape(len(paths.weights), -1) @ k
    m = k @ state.a.ravel()
    return from_latent_traced(spec.transform, state.output, m + state.output.calibration * (z - m))


_priors = program(lambda spec, carried, u: _prior(carried[0], carried[1], u))
_prior_slopes = program(lambda spec, carried, u: jax.jacfwd(lambda at: _prior(carried[0], carried[1], at))(u))
_values = program(_paths_at)
_gradients = program(lambda spec, carried, u: jax.jacfwd(lambda at: _paths_at(spec, carried, at))(u))
