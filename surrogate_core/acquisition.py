"""What is minimized over the unit cube: functions of the surrogate's mean m and standard deviation s at a point.

Both are of the standardized output, where a number that rises with the mean stands for it (`Surrogate.standardized`),
so that the minimizer of the mean is that of `predict`.
"""

from dataclasses import dataclass
from functools import cache
from numbers import Real
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.output import AnyArray, to_latent
from surrogate_core.surrogates.support import extrapolation

Name = Literal["mean", "cautious", "exploring", "expected_improvement", "log_expected_improvement", "conservative"]
Form = Literal["mean", "bound", "conservative", "expected_improvement", "log_expected_improvement"]


class Weights(NamedTuple):
    """What a goal depends on beside the surrogate.

    Args:
        kappa: standard deviations that are added to the mean; below 0 they are taken off.
        best: the value, in standardized units, on which is to be improved.
        beyond: added to the mean for each edge of the data that a point is beyond.
    """

    kappa: AnyArray
    best: AnyArray
    beyond: AnyArray


@dataclass(frozen=True)
class Goal:
    """What is to be minimized, in words that do not depend on a surrogate.

    Args:
        name: "mean"; "cautious", the mean plus kappa standard deviations; "exploring", the mean less so many;
            "expected_improvement" and "log_expected_improvement" on the least prediction at a row, or on `best`;
            "conservative", the mean plus kappa standard deviations and kappa for each edge beyond the data.
        kappa: how cautious, exploring or conservative.
        best: the value to be improved on, in the problem's units.

    Raises:
        ValueError: a value is out of its range.
    """

    name: Name = "mean"
    kappa: float = 1.0
    best: float | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(Name):
            raise ValueError(f"goal: expected one of {', '.join(get_args(Name))}, got {self.name!r}")
        if not (isinstance(self.kappa, Real) and self.kappa >= 0 and np.isfinite(self.kappa)):
            raise ValueError(f"kappa: expected a number >= 0, got {self.kappa!r}")
        if self.best is not None and not (isinstance(self.best, Real) and np.isfinite(self.best)):
            raise ValueError(f"best: expected a finite number, got {self.best!r}")

    @property
    def caution(self) -> float:
        """Standard deviations that are added to the mean."""
        return self.kappa if self.name in ("cautious", "conservative") else 0.0

    @property
    def form(self) -> "Form":
        return "bound" if self.name == "cautious" or self.name == "exploring" else self.name

    def weights(self, fitted: FittedSurrogate) -> "Weights":
        """Of the form, for a surrogate."""
        kappa = -self.kappa if self.name == "exploring" else self.caution
        best = 0.0
        if self.name.endswith("expected_improvement"):
            output, transform = fitted.state.output, fitted.spec.transform
            best = fitted.incumbent if self.best is None else self.best
            best = float(to_latent(transform, output, np.asarray(best)))
        return Weights(kappa, best, self.caution)


@cache
def acquisition(form: Form, spec: Surrogate) -> Any:
    """The function of (u, state, weights) that is minimized; the same object for equal arguments.

    - mean: m;
    - bound: m + kappa s (Srinivas et al. 2010, arXiv:0912.3995, eq. 6, with kappa < 0);
    - conservative: m + kappa s + beyond max(0, distance from the data - 1);
    - expected_improvement: -s h(z), z = (best - m) / s, h(z) = phi(z) + z Phi(z) (Jones et al. 1998, eq. 15);
    - log_expected_improvement: -log s - log h(z) (Ament et al. 2023, arXiv:2310.20708, eq. 8).

    Raises:
        ValueError: there is no such form.
    """
    if form not in get_args(Form):
        raise ValueError(f"form: expected one of {', '.join(get_args(Form))}, got {form!r}")

    def objective(u: Array, state: Any, weights: Weights) -> Array:
        m, s = spec.standardized(state, u)
        if form == "mean":
            return m
        if form in ("bound", "conservative"):
            bound = m + weights.kappa * s
            if form == "bound":
                return bound
            return bound + weights.beyond * jnp.maximum(extrapolation(spec.support(state), u) - 1, 0.0)
        log_improvement = jnp.log(s) + log_h((weights.best - m) / s)
        return -log_improvement if form == "log_expected_improvement" else -jnp.exp(log_improvement)

    return objective


FAR = -5.0  # below which h is lost in rounding, and a continued fraction is soon accurate
DEPTH = 32


@jax.custom_jvp
def log_h(z: Array) -> Array:
    """log(phi(z) + z Phi(z)), to nearly the last bit at any z.

    Far below 0, with x = -z and Mills' ratio Phi(z) / phi(z) = 1 / (x + K), K = 1 / (x + 2 / (x + 3 / (x + ...)))
    (Abramowitz & Stegun 1964, 26.2.14), it is log(phi(z) K / (x + K)), in which nothing cancels; Ament et al. (eq. 9)
    get there by the scaled complementary error function. Its derivative is Phi / h, there 1 / K.
    """
    return _log_h_and_slope(z)[0]


@log_h.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value, slope = _log_h_and_slope(*primals)
    return value, slope * tangents[0]


def _log_h_and_slope(z: Array) -> tuple[Array, Array]:
    is_far = z < FAR
    near, x = jnp.where(is_far, FAR, z), jnp.where(is_far, -z, -FAR)
    density, probability = jnp.exp(-(near**2) / 2) / np.sqrt(2 * np.pi), jax.scipy.special.ndtr(near)
    h = density + near * probability
    K = x
    for k in range(DEPTH, 0, -1):
        K = k / (x + K) if k > 1 else 1 / (x + K)
    far = -(x**2) / 2 - np.log(np.sqrt(2 * np.pi)) + jnp.log(K / (x + K))
    return jnp.where(is_far, far, jnp.log(h)), jnp.where(is_far, 1 / K, probability / h)


def exploration_weights(n: int) -> np.ndarray:
    """Kappas for a batch of n: 0, which follows the prediction alone, then quantiles of an exponential distribution.

    Source: Hutter, Hoos & Leyton-Brown (2012), "Parallel algorithm configuration", section 4: kappa ~ Exp(1) gives a
    batch whose members explore to different degrees. Quantiles in place of draws fix it without a seed.
    """
    quantiles = np.arange(n) / n
    return -np.log1p(-quantiles)
