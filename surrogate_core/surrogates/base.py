"""The contract of every surrogate: a frozen spec that fits a dataset, and the fitted surrogate it returns.

Notation: u: (d,) one point of the unit cube; m, v: mean and variance of the standardized output z there;
X: (d,) or (n, d) in the problem's units.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from surrogate_core.dataset import Dataset
from surrogate_core.precision import float64
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.output import Transform, from_latent, latent_of_mean, log_slope, moments
from surrogate_core.surrogates.predictive import Predictive
from surrogate_core.surrogates.support import Support, bucket, extrapolation, rows

if TYPE_CHECKING:
    from surrogate_core.surrogates.pathwise import FunctionDraws


class Estimate(NamedTuple):
    """What a fit is expected to take.

    memory_mb: by how much the process grows, with predictions afterwards; seconds: on two cores of 2024; once_s: more,
    of a process's first fit of such a size. They depend on the size of the data alone, so that what is decided by them
    is decided alike everywhere.
    """

    memory_mb: float
    seconds: float
    once_s: float = 0.0


@dataclass(frozen=True)
class Surrogate(ABC):
    """A surrogate's hyperparameters. Subclasses are final; what they do is a function of arrays and this spec."""

    kind: ClassVar[str]
    State: ClassVar[type]  # a NamedTuple of arrays and NamedTuples of such, an Output named `output` among them
    chunk: ClassVar[int] = 1024  # points that are predicted at once: what is computed of them stays in a CPU's cache
    searched: ClassVar[Mapping[str, Sequence[Any]]] = {}  # fields and their values that tuning tries by default
    transform: Transform = "standardize"

    @abstractmethod
    def fit(
        self, dataset: Dataset, key: Array | None = None, start: "FittedSurrogate | None" = None
    ) -> "FittedSurrogate":
        """Learns the ok rows of a dataset, in whatever order they are.

        Args:
            dataset: at least one ok row.
            key: a `jax.random.key`, which fixes every bit; without one, `jax.random.key(0)`.
            start: a fit of this spec to fewer of these rows, from which the search goes on; sooner done.

        Raises:
            ValueError: there is nothing to fit, or the values do not suit the transform.
        """

    def within(self, memory_mb: float) -> Sequence["Surrogate"]:
        """Others like it that may take less memory, the nearest first."""
        return ()

    def estimate(self, n_samples: int, n_dims: int, derivatives: bool = False) -> Estimate:
        """What a fit to so many rows of so many variables, or derivatives too, takes; memory within a factor of 2."""
        raise NotImplementedError(f"{type(self).__name__}: has no estimate of what a fit takes")

    @abstractmethod
    def latent(self, state: Any, u: Array) -> tuple[Array, Array]:
        """m and v of the noise-free output at one point; pure, differentiable."""

    def noise(self, state: Any) -> Array:
        """Variance of the observation noise of z; of a state that has it as `noise`."""
        return state.noise

    def support(self, state: Any) -> Support:
        """Where the data is, by the surrogate's own measure of distance; of a state that has it as `support`."""
        return state.support

    def leave_one_out(self, fitted: "FittedSurrogate", dataset: Dataset) -> Predictive | None:
        """What each ok row of what was fitted is expected to be by all others; None where no closed form is known."""
        return None

    def _check_transform(self, auto: bool) -> None:
        known = [name for name in get_args(Transform) if auto or name != "auto"]
        if self.transform not in known:
            raise ValueError(f"transform: expected one of {', '.join(known)}, got {self.transform!r}")

    def _check_range(self, name: str, low: float, high: float, whole: bool = False) -> None:
        """A field's value, cast from numpy's as a model's file may hold it."""
        value = getattr(self, name)
        if isinstance(value, np.generic):
            object.__setattr__(self, name, value := value.item())
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not low <= value <= high:
            what = "an integer" if whole else "a number"
            span = f">= {low:g}" if high == np.inf else f"from {low:g} to {high:g}"
            raise ValueError(f"{name}: expected {what} {span}, got {value!r}")

    @property
    def state_type(self) -> type:
        """Of what a fit by this spec has for a state."""
        return self.State

    @property
    def traced(self) -> "Surrogate":
        """The spec less what matters to the fit alone: programs that predict are compiled once for each such."""
        return self

    def calibrated(self, state: Any, u: Array) -> tuple[Array, Array]:
        """m and v with the stretch that calibration found."""
        m, v = self.latent(state, u)
        return m, v * state.output.calibration**2

    def moments(self, state: Any, u: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of y in the problem's units at one point; pure, differentiable."""
        return moments(self.transform, state.output, *self.calibrated(state, u))

    def standardized(self, state: Any, u: Array) -> tuple[Array, Array]:
        """A number that rises with the mean of y, and is of the size of z, and the standard deviation of z."""
        m, v = self.calibrated(state, u)
        return latent_of_mean(self.transform, state.output, m, v), v**0.5

    def to_config(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    def __str__(self) -> str:
        """What differs from the defaults."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        said = {k: f"[{', '.join(map(str, v))}]" if isinstance(v, tuple) else v for k, v in changed.items()}
        return f"{self.kind}({', '.join(f'{k}={v}' for k, v in said.items())})" if changed else self.kind


@jax.tree_util.register_pytree_node_class
class FittedSurrogate:
    """A pytree of arrays (`state`) with the spec and space it belongs to.

    All differentiation happens inside, in float64: `gradient` is `jax.grad` of `predict` and nothing else. Points go in
    and values come out as numpy float64 in the problem's units. Within a JAX transformation of one's own, `predict`,
    `uncertainty` and `gradient` are traced: values are computed in float64, and rounded to the type of the points.

    Args:
        spec: what predicts: its choices are made, no field is "auto".
        space: of the points.
        state: a `spec.state_type`.
        diagnostics: how the fit went; told, not carried through transformations.
        asked: the spec that was asked to fit, by which to fit again; by default `spec`.
    """

    def __init__(
        self,
        spec: Surrogate,
        space: SearchSpace,
        state: Any,
        diagnostics: Mapping[str, Any] | None = None,
        asked: Surrogate | None = None,
    ):
        self.spec = spec
        self.space = space
        self.state = state
        self.diagnostics = dict(diagnostics or {})
        self.asked = spec if asked is None else asked

    def predict(self, X: Any) -> np.ndarray:
        """Mean of the prediction, scalar or (n,)."""
        return self._at(_mean, X)

    def uncertainty(self, X: Any) -> np.ndarray:
        """Standard deviation of the noise-free function under the model, scalar or (n,)."""
        return self._at(_std, X)

    def gradient(self, X: Any) -> np.ndarray:
        """Gradient of `predict` in the problem's units, (d,) or (n, d)."""
        if isinstance(X, jax.core.Tracer):
            slope = jax.grad(lambda x: self._at(_mean, x))
            return slope(X) if X.ndim == 1 else jax.vmap(slope)(X)
        return self._at(_gradient, X) * self.space.slope(X)

    def predictive(self, X: Any, noise: Any = None) -> Predictive:
        """The distribution of observations at each point.

        Args:
            X: points.
            noise: standard deviations of the observations, scalar or (n,), in the problem's units, NaN where unknown;
                without it, the noise that was learned.
        """
        m, v = self._at(_latent, X)
        return Predictive(self.spec.transform, self.state.output, m, v, self._noise(m, noise))

    def interval(self, X: Any, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Central interval in which an observation, noise included, falls with probability `level`."""
        return self.predictive(X).interval(level)

    def log_density(self, X: Any, y: np.ndarray) -> np.ndarray:
        """Log of the predictive density of observations y, noise included, scalar or (n,)."""
        return self.predictive(X).log_density(y)

    def extrapolation(self, X: Any) -> np.ndarray:
        """How far points are from the data, scalar or (n,): 0 at a row, 1 at the edge of the data, more beyond.

        Distances are the surrogate's own: a variable that hardly matters hardly counts. Of new points from where the
        data is from, 95 % are below 1.
        """
        return self._at(_extrapolation, X)

    @property
    def incumbent(self) -> float:
        """The least prediction at a row of the data, in the problem's units."""
        return float(self.predict(self.space.decode(rows(self.spec.support(self.state)))).min())

    def draws(self, n_draws: int, key: Array | None = None, n_features: int = 512) -> "FunctionDraws":
        """Functions drawn from the posterior of the noise-free function; called with points, each gives its values.

        Args:
            n_draws: how many.
            key: a `jax.random.key`, which fixes every bit; without one, `jax.random.key(0)`.
            n_features: of the approximation of the prior; more are closer to it.

        Raises:
            ValueError: the surrogate is no Gaussian process, or a number is below 1.
        """
        from surrogate_core.surrogates.gaussian_process import GPSurrogate
        from surrogate_core.surrogates.pathwise import draw_functions

        if not isinstance(self.spec, GPSurrogate):
            raise ValueError(f"draws: expected a gaussian_process, got {self.spec.kind}")
        key = jax.random.key(0) if key is None else key
        return draw_functions(self.spec, self.space, self.state, n_draws, key, n_features)

    def recalibrated(self, factor: float) -> "FittedSurrogate":
        """The same with all standard deviations, of the latent output, multiplied by a factor on top of any before."""
        output = self.state.output._replace(calibration=np.float64(self.state.output.calibration * factor))
        state = self.state._replace(output=output)
        return FittedSurrogate(self.spec, self.space, state, self.diagnostics, self.asked)

    def save(self, folder: str | Path) -> None:
        """Writes `model.safetensors` and `model.json` to a folder, made if need be."""
        from surrogate_core.surrogates.files import save_surrogate  # it needs the union of all surrogates

        save_surrogate(self, Path(folder))

    def _at(self, of_points: Callable[..., Any], X: Any) -> Any:
        if isinstance(X, jax.core.Tracer):
            return traced(of_points, self.spec, self.space, self.state, X)
        return evaluate(of_points, self.spec, self.space, self.state, X)

    def _noise(self, m: np.ndarray, noise: Any) -> np.ndarray:
        learned = np.asarray(self.spec.noise(self.state))
        if noise is None:
            return learned
        y = from_latent(self.spec.transform, self.state.output, m)  # where the noise is read through the transform
        known = (np.asarray(noise) * np.exp(log_slope(self.spec.transform, self.state.output, y))) ** 2
        return np.where(np.isnan(known), learned, known)

    def tree_flatten(self) -> tuple[tuple[Any], tuple[Surrogate, SearchSpace, Surrogate]]:
        return (self.state,), (self.spec, self.space, self.asked)

    @classmethod
    def tree_unflatten(cls, aux: tuple[Surrogate, SearchSpace, Surrogate], children: tuple[Any]) -> "FittedSurrogate":
        return cls(*aux[:2], *children, asked=aux[2])


def program(of_point: Callable[[Any, Any, Array], Any]) -> Callable[..., Any]:
    """Compiles a function of (spec, state, u) for many points at once, as `evaluate` calls it."""

    @partial(jax.jit, static_argnums=0)
    def of_points(spec: Surrogate, state: Any, U: Array) -> Any:
        return jax.vmap(partial(of_point, spec, state))(U)

    return of_points


@float64
def evaluate(
    of_points: Callable[..., Any], spec: Surrogate, space: SearchSpace, state: Any, X: Any, size: int | None = None
) -> Any:
    """What a `program` tells of points in the problem's units, (d,) or (n, d), a chunk at a time: numpy arrays.

    Every chunk has `size` points, or, without one, at most the spec's `chunk`, filled up to one of a few sizes.
    """
    U = np.atleast_2d(space.encode(X))
    parts = []
    for first in range(0, max(len(U), 1), size or spec.chunk):
        chunk = U[first : first + (size or spec.chunk)]
        padding = np.full(((size or bucket(len(chunk))) - len(chunk), U.shape[1]), 0.5)
        parts.append(of_points(spec.traced, state, np.concatenate([chunk, padding])))

    def whole(*leaves: Array) -> np.ndarray:  # only the last chunk is padded
        joined = np.concatenate(leaves)[: len(U)]
        return joined.reshape(np.shape(X)[:-1] + joined.shape[1:])

    return jax.tree.map(whole, *parts)


def traced(of_points: Callable[..., Any], spec: Surrogate, space: SearchSpace, state: Any, X: Array) -> Any:
    """What a `program` of one value a point tells of traced points, (d,) or (n, d), of whichever float type."""

    def of_point(x: Array) -> Array:
        value: Array = of_points(spec.traced, state, _encoded(space, x)[None])[0]
        return value

    @jax.custom_jvp
    def at(x: Array) -> Array:
        with jax.enable_x64(True):
            return of_point(x.astype(np.float64)).astype(x.dtype)

    @at.defjvp
    def derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        (x,), (dx,) = primals, tangents
        with jax.enable_x64(True):  # in which the transposition of a jvp would not be
            slope = jax.grad(of_point)(x.astype(np.float64)).astype(x.dtype)
        return at(x), slope @ dx

    return at(X) if X.ndim == 1 else jax.vmap(at)(X)


def _encoded(space: SearchSpace, x: Array) -> Array:
    """`space.encode` of one traced point: variables are linear, logarithmic, or choices, which have no slope."""
    zero, one = (np.full(space.n_dims, value) for value in (0.0, 1.0))
    with np.errstate(divide="ignore"):
        at_one, step, slope = space.encode(one), space.encode(one) - space.encode(zero), space.slope(one)
    is_log = np.array([getattr(variable, "log", False) for variable in space.variables])
    x = jnp.where(slope == 0, jax.lax.stop_gradient(x), x)
    linear = at_one + np.where(is_log, 0.0, step) * (x - 1)
    return jnp.where(is_log, at_one + slope * jnp.log(jnp.where(is_log, x, 1.0)), linear)


# What is not asked for is not computed: of a program that tells the mean alone, XLA leaves out the variance.
_latent = program(lambda spec, state, u: spec.latent(state, u))
_mean = program(lambda spec, state, u: spec.moments(state, u)[0])
_std = program(lambda spec, state, u: spec.moments(state, u)[1])
_gradient = program(lambda spec, state, u: jax.grad(lambda at: spec.moments(state, at)[0])(u))
_extrapolation = program(lambda spec, state, u: extrapolation(spec.support(state), u))
