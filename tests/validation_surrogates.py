"""Surrogates whose answers are known: what validation says of them can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from surrogate_core import Dataset, SearchSpace
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.output import Output, fit_output
from surrogate_core.surrogates.predictive import Predictive
from surrogate_core.surrogates.support import Support
from surrogate_core.validation.held_out import HeldOut

PLAIN = Output(np.float64(0.0), np.float64(1.0))  # y is z


class MeanState(NamedTuple):
    U: Any
    output: Output


@dataclass(frozen=True)
class Mean(Surrogate):
    """Predicts the mean of the rows it has seen, and counts their standard deviation for its own."""

    kind: ClassVar[str] = "mean"
    State: ClassVar[type] = MeanState
    name: str = ""

    def fit(self, dataset: Dataset, key: Any = None, start: Any = None) -> FittedSurrogate:
        FITS.append((self, dataset, jax.random.key_data(key).tolist(), start))
        state = MeanState(dataset.space.encode(dataset.X), fit_output(self.transform, dataset.y)[0])
        return FittedSurrogate(self, dataset.space, state)

    def latent(self, state: MeanState, u: Any) -> Any:
        return 0.0 * u[0], 1.0 + 0.0 * u[0]

    def noise(self, state: MeanState) -> Any:
        return np.float64(0.0)

    def support(self, state: MeanState) -> Support:
        n, d = state.U.shape
        return Support(state.U, np.ones(n), np.zeros(d), np.ones(d), np.float64(0.25))


FITS: list[Any] = []
"""What the calls of `Mean.fit` were given, in their order."""


class ExactState(NamedTuple):
    scale: Any
    e: Any
    output: Output


@dataclass(frozen=True)
class Exact(Surrogate):
    """Predicts a known function of unit-cube coordinates."""

    kind: ClassVar[str] = "exact"
    State: ClassVar[type] = ExactState
    function: Callable[[Any], Any] = sum

    def fit(self, dataset: Dataset, key: Any = None, start: Any = None) -> FittedSurrogate:
        return exact(self.function, dataset.space)

    def latent(self, state: ExactState, u: Any) -> Any:
        return self.function(u), 1.0 + 0.0 * u[0]

    def noise(self, state: ExactState) -> Any:
        return state.e

    def support(self, state: ExactState) -> Support:
        d = len(state.scale)
        return Support(np.full((1, d), 0.5), np.ones(1), np.zeros(d), state.scale, np.float64(1.0))


def exact(function: Callable[[Any], Any], space: SearchSpace, scale: Any = None, e: float = 0.0) -> FittedSurrogate:
    """A fitted surrogate that is the function, of u, itself; with lengthscales and a noise variance as given."""
    lengths = np.ones(space.n_dims) if scale is None else np.array(scale, dtype=float)
    return FittedSurrogate(Exact(function=function), space, ExactState(lengths, np.float64(e), PLAIN))


def held_out(y: Any, m: Any, s: Any, n_folds: int = 2, transform: Any = "standardize") -> HeldOut:
    """Rows of which every n_folds-th is in a fold, each expected to be normal (in the latent output) by m and s."""
    y = np.asarray(y, dtype=float)
    n = len(y)
    m, s = (np.broadcast_to(np.asarray(part, dtype=float), n) for part in (m, s))
    fold = np.arange(n) % n_folds
    index = [np.flatnonzero(fold == i) for i in range(n_folds)]
    parts = [(rows, Predictive(transform, PLAIN, m[rows], s[rows] ** 2, np.zeros(len(rows)))) for rows in index]
    return HeldOut(Dataset(np.arange(float(n))[:, None], y), fold, tuple(parts))
