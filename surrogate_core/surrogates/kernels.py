"""Stationary kernels as functions of the squared scaled distance r2, with the derivatives that gradients need.

Notation: k(r2); h = -2 dk/dr2, so that dk/du = -h D/l^2 for a difference D; q = -2 dh/dr2. Each takes the module of its
arrays, numpy within a fit or JAX within a compiled program.

Source: Rasmussen & Williams, "Gaussian Processes for Machine Learning" (2006), eqs. 4.9, 4.14 and 4.17.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

Kernel = Literal["matern52", "matern32", "matern12", "rbf", "matern", "auto"]
SMOOTH = ("matern52", "matern32", "rbf")  # whose draws have derivatives, which can be learned from

_Pair = Callable[[Any, Any], tuple[Any, Any]]
A3, A5 = 3**0.5, 5**0.5
ROUNDING = 1e-13  # r2 of a point and itself, as a difference of squares


def _matern52(xp: Any, r2: Any) -> tuple[Any, Any]:
    r = A5 * xp.sqrt(r2)
    e = xp.exp(-r)
    return (1 + r + r * r / 3) * e, 5 / 3 * (1 + r) * e


def _matern32(xp: Any, r2: Any) -> tuple[Any, Any]:
    r = A3 * xp.sqrt(r2)
    e = xp.exp(-r)
    return (1 + r) * e, 3 * e


def _matern12(xp: Any, r2: Any) -> tuple[Any, Any]:
    e = xp.exp(-_root(xp, r2))
    return e, _over_root(xp, e, r2)


def _rbf(xp: Any, r2: Any) -> tuple[Any, Any]:
    e = xp.exp(-0.5 * r2)
    return e, e


def _matern52_q(xp: Any, r2: Any) -> Any:
    return 25 / 3 * xp.exp(-A5 * _root(xp, r2))


def _matern32_q(xp: Any, r2: Any) -> Any:
    return _over_root(xp, 3 * A3 * xp.exp(-A3 * _root(xp, r2)), r2)


def _matern12_q(xp: Any, r2: Any) -> Any:
    return _over_root(xp, _over_root(xp, _matern12(xp, r2)[1] * (1 + _root(xp, r2)), r2), r2)


def _over_root(xp: Any, value: Any, r2: Any) -> Any:
    """value / r, and 0 at 0, where it meets a difference of 0."""
    return xp.where(r2 > ROUNDING, value / xp.sqrt(xp.where(r2 > ROUNDING, r2, 1.0)), 0.0)


def _root(xp: Any, r2: Any) -> Any:
    """r; its derivative at 0 is 0."""
    return xp.where(r2 > ROUNDING, xp.sqrt(xp.where(r2 > ROUNDING, r2, 1.0)), 0.0)


# (k, h), which have most of their cost in common, and q.
KERNELS: dict[str, tuple[_Pair, Callable[[Any, Any], Any]]] = {
    "matern52": (_matern52, _matern52_q),
    "matern32": (_matern32, _matern32_q),
    "matern12": (_matern12, _matern12_q),
    "rbf": (_rbf, lambda xp, r2: _rbf(xp, r2)[0]),
}
KERNELS["matern"] = KERNELS["matern52"]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def covariance(kernel: str, r2: Array) -> Array:
    """k(r2); its derivative is -h/2 rather than a difference of terms that grow without bound towards r2 = 0."""
    return KERNELS[kernel][0](jnp, r2)[0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def slope(kernel: str, r2: Array) -> Array:
    """h(r2)."""
    return KERNELS[kernel][0](jnp, r2)[1]


@covariance.defjvp
def _covariance_jvp(kernel: str, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return covariance(kernel, *primals), -0.5 * slope(kernel, *primals) * tangents[0]


@slope.defjvp
def _slope_jvp(kernel: str, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return slope(kernel, *primals), -0.5 * curvature(kernel, *primals) * tangents[0]


def choice_at(u: Any, m: Any, xp: Any = jnp) -> Any:
    """Which of m choices, each as wide as the others, the coordinate u in [0, 1] stands for; -1 of none."""
    return xp.minimum(xp.floor(u * m), m - 1)


def curvature(kernel: str, r2: Array) -> Array:
    """q(r2)."""
    return KERNELS[kernel][1](jnp, r2)
