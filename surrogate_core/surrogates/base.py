"""The contract of every surrogate: a frozen spec that fits a dataset, and the fitted surrogate it returns.

Notation: u: (d,) one point of the unit cube; m, v: mean and variance of the standardized output z there;
X: (d,) or (n, d) in the problem's units.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import ndtri

from surrogate_core.dataset import Dataset
from surrogate_core.precision import float64
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.output import Transform, from_latent, log_slope, moments, to_latent


@dataclass(frozen=True)
class Surrogate(ABC):
    """A surrogate's hyperparameters. Subclasses are final; what they do is a function of arrays and this spec."""

    kind: ClassVar[str]
    State: ClassVar[type]  # a NamedTuple of arrays and an Output named `output`
    transform: Transform = "standardize"

    @abstractmethod
    def fit(self, dataset: Dataset, key: Array | None = None) -> "FittedSurrogate":
        """Learns the ok rows of a dataset.

        Args:
            dataset: at least one ok row.
            key: a `jax.random.key`, which fixes every bit; without one, `jax.random.key(0)`.

        Raises:
            ValueError: there is nothing to fit, or the values do not suit the transform.
        """

    @abstractmethod
    def latent(self, state: Any, u: Array) -> tuple[Array, Array]:
        """m and v of the noise-free output at one point; pure, differentiable."""

    @abstractmethod
    def noise(self, state: Any) -> Array:
        """Variance of the observation noise of z."""

    @property
    def traced(self) -> "Surrogate":
        """The spec less what matters to the fit alone: programs that predict are compiled once for each such."""
        return self

    def moments(self, state: Any, u: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of y in the problem's units at one point; pure, differentiable."""
        return moments(self.transform, state.output, *self.latent(state, u))

    def to_config(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    def __str__(self) -> str:
        """What differs from the defaults."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return f"{self.kind}({', '.join(f'{k}={v}' for k, v in changed.items())})" if changed else self.kind


@jax.tree_util.register_pytree_node_class
class FittedSurrogate:
    """A pytree of arrays (`state`) with the spec and space it belongs to.

    All differentiation happens inside, in float64: `gradient` is `jax.grad` of `predict` and nothing else. Points go in
    and values come out as numpy float64 in the problem's units.
    """

    def __init__(self, spec: Surrogate, space: SearchSpace, state: Any, diagnostics: Mapping[str, Any] | None = None):
        self.spec = spec
        self.space = space
        self.state = state
        self.diagnostics = dict(diagnostics or {})  # told, not carried through transformations

    def predict(self, X: Any) -> np.ndarray:
        """Mean of the prediction, scalar or (n,)."""
        return self._moments(X)[0]

    def uncertainty(self, X: Any) -> np.ndarray:
        """Standard deviation of the noise-free function under the model, scalar or (n,)."""
        return self._moments(X)[1]

    @float64
    def gradient(self, X: Any) -> np.ndarray:
        """Gradient of `predict` in the problem's units, (d,) or (n, d)."""
        U = np.atleast_2d(self.space.encode(X))
        by_unit = np.asarray(_gradient(self.spec.traced, self.state, _padded(U)))[: len(U)]
        return by_unit.reshape(np.shape(X)) * self.space.slope(X)

    def interval(self, X: Any, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Central interval in which an observation, noise included, falls with probability `level`."""
        m, s = self._observed(X)
        half = ndtri((1 + level) / 2) * s
        output = self.state.output
        return from_latent(self.spec.transform, output, m - half), from_latent(self.spec.transform, output, m + half)

    def log_density(self, X: Any, y: np.ndarray) -> np.ndarray:
        """Log of the predictive density of observations y, noise included, scalar or (n,)."""
        m, s = self._observed(X)
        transform, output = self.spec.transform, self.state.output
        with np.errstate(invalid="ignore", divide="ignore"):
            z = (to_latent(transform, output, y) - m) / s
            density = -(z**2 + np.log(2 * np.pi)) / 2 - np.log(s) + log_slope(transform, output, y)
        return np.where(np.isnan(density), -np.inf, density)  # a value that the transform rules out

    def save(self, folder: str | Path) -> None:
        """Writes `model.safetensors` and `model.json` to a folder, made if need be."""
        from surrogate_core.surrogates.files import save_surrogate  # it needs the union of all surrogates

        save_surrogate(self, Path(folder))

    @float64
    def _latent(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        U = np.atleast_2d(self.space.encode(X))
        m, v = _latent(self.spec.traced, self.state, _padded(U))
        shape = np.shape(X)[:-1]
        return np.asarray(m)[: len(U)].reshape(shape), np.asarray(v)[: len(U)].reshape(shape)

    @float64
    def _moments(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        mean, std = moments(self.spec.transform, self.state.output, *map(jnp.asarray, self._latent(X)))
        return np.asarray(mean), np.asarray(std)

    @float64
    def _observed(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        m, v = self._latent(X)
        return m, np.sqrt(v + np.asarray(self.spec.noise(self.state)))

    def tree_flatten(self) -> tuple[tuple[Any], tuple[Surrogate, SearchSpace]]:
        return (self.state,), (self.spec, self.space)

    @classmethod
    def tree_unflatten(cls, aux: tuple[Surrogate, SearchSpace], children: tuple[Any]) -> "FittedSurrogate":
        return cls(*aux, *children)


def bucket(n: int) -> int:
    """The least of 64, 96, 128, 192, … that holds n rows: a growing dataset compiles a handful of programs.

    Below 64 rows the padding costs less in all refits of a run than one more compilation would.
    """
    size = 64
    while size < n:
        size += size // 2 if size & (size - 1) == 0 else size // 3
    return size


def _padded(U: np.ndarray) -> np.ndarray:
    return np.concatenate([U, np.full((bucket(len(U)) - len(U), U.shape[1]), 0.5)])


@partial(jax.jit, static_argnums=0)
def _latent(spec: Surrogate, state: Any, U: Array) -> tuple[Array, Array]:
    return jax.vmap(partial(spec.latent, state))(U)


@partial(jax.jit, static_argnums=0)
def _gradient(spec: Surrogate, state: Any, U: Array) -> Array:
    return jax.vmap(jax.grad(lambda u: spec.moments(state, u)[0]))(U)
