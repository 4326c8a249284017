"""Output transforms: a surrogate models z = (g(y) - shift) / scale, a user reads y in the problem's units.

z | u is Gaussian with mean m and variance v, so y is Gaussian where g is the identity and log-normal where g = log.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array

Transform = Literal["standardize", "log"]
AnyArray: TypeAlias = Any  # numpy outside a compiled program, JAX inside


class Output(NamedTuple):
    """The fitted numbers of a transform, part of a surrogate's state."""

    shift: AnyArray
    scale: AnyArray


def fit_output(transform: Transform, y: np.ndarray) -> Output:
    """Shift and scale of g(y), (n,).

    Raises:
        ValueError: a value is not positive where the transform is the logarithm.
    """
    if transform == "log" and y.min() <= 0:
        raise ValueError(f"transform: expected values above 0 for 'log', got {y.min():g}; use 'standardize'")
    g = np.log(y) if transform == "log" else y
    scale = g.std()
    # Values that are equal up to rounding have no scale of their own.
    return Output(g.mean(), scale if scale > 1e-12 * max(1e-300, np.abs(g).max()) else np.float64(1.0))


def to_latent(transform: Transform, output: Output, y: np.ndarray) -> np.ndarray:
    """z of y in the problem's units."""
    return ((np.log(y) if transform == "log" else y) - output.shift) / output.scale


def from_latent(transform: Transform, output: Output, z: np.ndarray) -> np.ndarray:
    """y in the problem's units of z; monotone, so it carries quantiles over."""
    g = output.shift + output.scale * z
    return np.exp(g) if transform == "log" else g


def log_slope(transform: Transform, output: Output, y: np.ndarray) -> np.ndarray:
    """log dz/dy, by which a log density of z becomes one of y."""
    return -np.log(output.scale) - (np.log(y) if transform == "log" else 0.0)


def moments(transform: Transform, output: Output, m: Array, v: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of y in the problem's units, of z ~ N(m, v)."""
    mean, variance = output.shift + output.scale * m, output.scale**2 * v
    if transform == "log":  # of a log-normal variable
        expected = jnp.exp(mean + variance / 2)
        return expected, expected * jnp.sqrt(jnp.expm1(variance))
    return mean, jnp.sqrt(variance)
