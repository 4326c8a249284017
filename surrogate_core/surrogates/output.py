"""Output transforms: a surrogate models z = (g(y) - shift) / scale, a user reads y in the problem's units.

z | u is Gaussian with mean m and variance v; g is monotone, so quantiles carry over, and y's moments follow by
integration. Notation: p: Yeo-Johnson's power; t: (y - center) / spread.

Source of the power transform: Yeo & Johnson (2000), Biometrika 87(4), 954, eq. 2.1. Its power is kept in [0, 2], where
g maps the whole real line onto itself, so that every z has a y.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.optimize import minimize_scalar
from scipy.special import ndtri, stdtrit

from surrogate_core.measurement import LARGEST

Transform = Literal["standardize", "log", "yeo_johnson", "auto"]
AnyArray: TypeAlias = Any  # numpy outside a compiled program, JAX inside

FLAT = 1e-15  # values that differ by less, relative to their size, are equal up to rounding
ISOLATED = 100.0  # an outlier is farther from all others than so many times their range
OUTLYING = 0.05  # and no more than this part of the rows are outliers
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
WEIGHTS = WEIGHTS / WEIGHTS.sum()  # of a standard normal variable


class Output(NamedTuple):
    """The fitted numbers of a transform, part of a surrogate's state.

    z is learned within [low, high]; `calibration` stretches standard deviations: from the start by what is not known of
    the scale of few rows.
    """

    shift: AnyArray
    scale: AnyArray
    center: AnyArray = np.float64(0.0)
    spread: AnyArray = np.float64(1.0)
    power: AnyArray = np.float64(1.0)
    low: AnyArray = np.float64(-np.inf)
    high: AnyArray = np.float64(np.inf)
    calibration: AnyArray = np.float64(1.0)


def fit_output(transform: Transform, y: np.ndarray) -> tuple[Output, list[str]]:
    """The transform of the values (n,), and what was done to values that cannot be learned as they are.

    Raises:
        ValueError: a value is not positive where the transform is the logarithm.
    """
    if transform == "log" and y.min() <= 0:
        raise ValueError(f"transform: expected values above 0 for 'log', got {y.min():g}; use 'standardize'")
    if (largest := np.abs(y).max()) > LARGEST:
        raise ValueError(f"fit: expected values no larger than {LARGEST:g}, got {largest:g}")
    output = Output(np.float64(0.0), np.float64(1.0), calibration=_of_few(len(y)))
    if transform == "yeo_johnson":
        low, center, high = np.quantile(y, [0.25, 0.5, 0.75])
        spread = (high - low) / 1.349 or y.std() or 1.0  # that of a normal variable with these quartiles
        power = _likeliest_power((y - center) / spread)
        output = output._replace(center=center, spread=np.float64(spread), power=np.float64(power))
    g = to_latent(transform, output, y)
    low, high, n_outliers = _range(g)
    g = np.clip(g, low, high)
    size = np.abs(g).max()
    shift, scale = g.mean(), g.std() or size * (g / (size or 1.0)).std()  # squares of tiny values are 0
    if scale <= FLAT * size:  # no scale of its own
        scale = np.float64(size or 1.0)
        return output._replace(shift=shift, scale=scale, low=0 * scale, high=0 * scale), ["all values are equal"]
    told = []
    if n_outliers:
        told.append(
            f"{n_outliers} outlier{'s' * (n_outliers > 1)} drawn in to the range of the other values, and doubted"
        )
        output = output._replace(low=(low - shift) / scale, high=(high - shift) / scale)
    return output._replace(shift=shift, scale=scale), told


def learned_latent(transform: Transform, output: Output, y: np.ndarray) -> np.ndarray:
    """z of y as it is learned: that of an outlier is drawn in."""
    return np.clip(to_latent(transform, output, y), output.low, output.high)


def to_latent(transform: Transform, output: Output, y: np.ndarray) -> np.ndarray:
    """z of y in the problem's units."""
    if transform == "log":
        g = np.log(y)
    elif transform == "yeo_johnson":
        g = _power(output.power, (y - output.center) / output.spread)
    else:
        g = y
    return (g - output.shift) / output.scale


def from_latent(transform: Transform, output: Output, z: np.ndarray) -> np.ndarray:
    """y in the problem's units of z; monotone, so it carries quantiles over."""
    return np.asarray(_from_latent(np, transform, output, z))


def from_latent_traced(transform: Transform, output: Output, z: Array) -> Array:
    """`from_latent` within a compiled program."""
    return jnp.asarray(_from_latent(jnp, transform, output, z))


def log_slope(transform: Transform, output: Output, y: np.ndarray) -> np.ndarray:
    """log dz/dy, by which a log density of z becomes one of y."""
    if transform == "log":
        slope = -np.log(y)
    elif transform == "yeo_johnson":
        t = (y - output.center) / output.spread
        slope = np.sign(t) * (output.power - 1) * np.log1p(np.abs(t)) - np.log(output.spread)
    else:
        slope = np.zeros_like(y)
    return slope - np.log(output.scale)


def moments(transform: Transform, output: Output, m: Any, v: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """Mean and standard deviation of y in the problem's units, of z ~ N(m, v)."""
    if transform == "yeo_johnson":
        y = _from_latent(xp, transform, output, m[..., None] + xp.sqrt(v)[..., None] * NODES)
        mean = y @ WEIGHTS
        return mean, xp.sqrt((y - mean[..., None]) ** 2 @ WEIGHTS)
    mean, variance = output.shift + output.scale * m, output.scale**2 * v
    if transform == "log":  # of a log-normal variable
        expected = xp.exp(mean + variance / 2)
        return expected, expected * xp.sqrt(xp.expm1(variance))
    return mean, xp.sqrt(variance)


def latent_of_mean(transform: Transform, output: Output, m: Array, v: Array) -> Array:
    """z of the mean of y, of z ~ N(m, v): rises with that mean and is of the size of m."""
    if transform == "log":  # log E[y] = shift + scale (m + scale v / 2)
        return m + output.scale * v / 2
    if transform == "yeo_johnson":
        t = (moments(transform, output, m, v)[0] - output.center) / output.spread
        return (_power(output.power, t, jnp) - output.shift) / output.scale
    return m


def _from_latent(xp: Any, transform: Transform, output: Output, z: Any) -> Any:
    g = output.shift + output.scale * z
    if transform == "log":
        return xp.exp(g)
    if transform == "yeo_johnson":
        return output.center + output.spread * _power_inverse(xp, output.power, g)
    return g


def _power(p: Any, t: Any, xp: Any = np) -> Any:
    """g(t); the part below 0 is that above with 2 - p in place of p, turned round."""
    q = xp.where(t >= 0, p, 2 - p)
    size = xp.log1p(xp.abs(t))
    tiny = xp.abs(q) < 1e-8
    return xp.sign(t) * xp.where(tiny, size, xp.expm1(xp.where(tiny, 1.0, q) * size) / xp.where(tiny, 1.0, q))


def _power_inverse(xp: Any, p: Any, g: Any) -> Any:
    q = xp.where(g >= 0, p, 2 - p)
    tiny = xp.abs(q) < 1e-8
    size = xp.where(tiny, xp.abs(g), xp.log1p(xp.abs(g) * xp.where(tiny, 1.0, q)) / xp.where(tiny, 1.0, q))
    return xp.sign(g) * xp.expm1(size)


def _likeliest_power(t: np.ndarray) -> float:
    """The power in [0, 2] that makes g(t), (n,), most nearly normal (section 3 of the source)."""
    slope = np.sum(np.sign(t) * np.log1p(np.abs(t)))

    def loss(p: float) -> float:
        variance = np.var(_power(p, t))
        return float(len(t) / 2 * np.log(max(variance, 1e-300)) - (p - 1) * slope)

    return float(minimize_scalar(loss, bounds=(0.0, 2.0), method="bounded").x) if np.ptp(t) > 0 else 1.0


def _of_few(n: int) -> np.float64:
    """By how much a deviation in units of one that n rows tell is to be stretched: Student's t over the normal.

    It is 6.5 for two rows, 1.15 for ten, 1.01 for a hundred; what one row tells is no more than two do.
    """
    return np.float64(stdtrit(max(n - 1, 1), 0.975) / ndtri(0.975))


def _range(g: np.ndarray) -> tuple[float, float, int]:
    """Within what values are learned, and how many of them are outliers: few, and far beyond all others."""
    order = np.argsort(np.abs(g - np.median(g)), kind="stable")
    for k in range(1, max(2, int(OUTLYING * len(g)) + 1)):
        others, far = g[order[:-k]], g[order[-k:]]
        if len(others) < 4:
            break
        low, high = others.min(), others.max()
        width = high - low
        apart = np.maximum(low - far, far - high).min()
        if width > FLAT * np.abs(others).max() and apart > ISOLATED * width:
            return low - width, high + width, k
    return -np.inf, np.inf, 0
