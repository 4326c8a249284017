"""Fitted surrogates that remember what they predicted, or predict any number of points in batches of one size."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from surrogate_core.performance.cache import CacheType, SurrogateCache
from surrogate_core.performance.profiler import count
from surrogate_core.surrogates.base import FittedSurrogate, evaluate

REMEMBERED = ("predict", "uncertainty", "gradient")
NEIGHBOURS = 64  # that are predicted together: on a CPU hardly dearer than one

PLAIN: Any = (FittedSurrogate.tree_flatten, FittedSurrogate.tree_unflatten)  # a wrapper is transformed as what it wraps

_numbers = itertools.count()


def model_digest(fitted: FittedSurrogate) -> str:
    """Of all that a fitted surrogate predicts by."""
    told = hashlib.sha256(repr((fitted.spec, fitted.space.to_config())).encode())
    for leaf in jax.tree.leaves(fitted.state):
        array = np.ascontiguousarray(leaf)
        told.update(f"{array.dtype.str}{array.shape}".encode())
        told.update(array.tobytes())
    return told.hexdigest()


class _Remembering:
    """Answers `predict`, `uncertainty` and `gradient` of points that were asked for before from a cache.

    Values that are given out are read-only where they are arrays.
    """

    cache: SurrogateCache
    _model: Hashable
    _neighbours: bool
    _last: np.ndarray | None = None

    def _remembered(self, operation: str, compute: Callable[[Any], Any], X: Any) -> Any:
        if isinstance(X, jax.core.Tracer):
            return compute(X)
        X = np.asarray(X, dtype=float)
        cache, model = self.cache, self._model
        if X.ndim == 1:
            key = (model, cache.key(X, operation))
            value = cache.get_key(key)
            count("cache_misses" if value is None else "cache_hits")
            if value is None:
                value = self._with_neighbours(operation, compute, X, key) if self._neighbours else compute(X)
                cache.set_key(key, value)
            return value
        keys = [(model, cache.key(x, operation)) for x in X]
        values = {key: cache.get_key(key) for key in keys}
        missing = [key for key, value in values.items() if value is None]
        count("cache_misses", len(missing))
        count("cache_hits", len(values) - len(missing))
        if missing:
            places = {key: i for i, key in enumerate(keys)}
            for key, value in zip(missing, compute(X[[places[key] for key in missing]]), strict=True):
                cache.set_key(key, value)
                values[key] = value
        return np.array([values[key] for key in keys]) if keys else compute(X)

    def _with_neighbours(self, operation: str, compute: Callable[[Any], Any], x: np.ndarray, key: Hashable) -> Any:
        """Predicts, in one call, what a search by steps along the axes is likely to ask for next.

        Where x is one step along one axis from the last point that was not known, these are the points that are such a
        step from either, along every axis and both ways.
        """
        last, self._last = self._last, x
        step = x - last if last is not None and last.shape == x.shape else np.zeros_like(x)
        if np.count_nonzero(step) != 1:
            return compute(x)
        steps = np.abs(step).max() * np.concatenate([np.eye(len(x)), -np.eye(len(x))])
        near = np.concatenate([[x], last + steps, x + steps])[:NEIGHBOURS]
        values = compute(near)
        for point, value in zip(near[1:], values[1:], strict=True):
            self.cache.set_key((self._model, self.cache.key(point, operation)), value)
        return values[0]


class CachedSurrogate(_Remembering, FittedSurrogate):
    """A fitted surrogate that remembers; made by `enable_caching`. Within a JAX transformation it is the plain one."""

    def __init__(self, fitted: FittedSurrogate, cache: SurrogateCache, neighbours: bool):
        super().__init__(fitted.spec, fitted.space, fitted.state, fitted.diagnostics, fitted.asked)
        self.cache = cache
        self._model = model_digest(fitted)
        self._neighbours = neighbours

    def predict(self, X: Any) -> np.ndarray:
        return self._remembered("predict", super().predict, X)

    def uncertainty(self, X: Any) -> np.ndarray:
        return self._remembered("uncertainty", super().uncertainty, X)

    def gradient(self, X: Any) -> np.ndarray:
        return self._remembered("gradient", super().gradient, X)


class CachedPredictor(_Remembering):
    """The same of a surrogate of one's own; all but what is remembered is the wrapped one's. Its `fit` forgets."""

    def __init__(self, wrapped: Any, cache: SurrogateCache, neighbours: bool):
        self.wrapped = wrapped
        self.cache = cache
        self._neighbours = neighbours
        self._model = next(_numbers)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "wrapped":
            raise AttributeError(name)
        value = getattr(self.wrapped, name)
        if name in REMEMBERED:
            return lambda X: self._remembered(name, value, X)
        return value

    def fit(self, *args: Any, **how: Any) -> Any:
        fitted = self.wrapped.fit(*args, **how)
        self._model = next(_numbers)
        return self if fitted is None or fitted is self.wrapped else fitted


def enable_caching(
    surrogate: Any,
    cache_type: CacheType = "lru",
    max_size: int = 1000,
    *,
    decimals: int | None = None,
    ttl: float = 3600.0,
    neighbours: bool = False,
    cache: SurrogateCache | None = None,
) -> Any:
    """A fitted surrogate that remembers what it predicted, in memory.

    Args:
        surrogate: a fitted surrogate, or any object with `predict(X)`.
        cache_type, max_size, decimals, ttl: of the `SurrogateCache`.
        neighbours: on a miss, also predict points that a search by steps would ask for next, in the same call.
        cache: one that several surrogates share, which makes the other settings; what one of them predicted never
            answers for another.

    Returns:
        The same kind of object: of a fitted surrogate of this library a `CachedSurrogate`, which optimizers take, and
        which is differentiated and saved as the one that it was made of.

    Raises:
        ValueError: the surrogate does not predict, or a setting is out of its range.
    """
    if cache is None:
        cache = SurrogateCache(max_size, cache_type, ttl=ttl, decimals=decimals)
    if isinstance(surrogate, FittedSurrogate):
        return CachedSurrogate(surrogate, cache, neighbours)
    if not callable(getattr(surrogate, "predict", None)):
        raise ValueError(f"surrogate: expected one that predicts, got {type(surrogate).__name__}; fit it first")
    return CachedPredictor(surrogate, cache, neighbours)


class VectorizedSurrogate(FittedSurrogate):
    """A fitted surrogate that predicts any number of points in batches of one size: one compilation, bounded memory.

    Points may be an array, a numpy memmap, or an iterator of points or of arrays of points. Of an iterator the answer
    is an iterator too, of an array for each batch.

    Args:
        surrogate: a fitted surrogate.
        batch_size: points that are predicted at once; the last ones are filled up.

    Raises:
        ValueError: it is no fitted surrogate of this library, or batch_size is below 1.
    """

    def __init__(self, surrogate: FittedSurrogate, batch_size: int = 1024):
        if not isinstance(surrogate, FittedSurrogate):
            raise ValueError(f"surrogate: expected a fitted surrogate, got {type(surrogate).__name__}")
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"batch_size: expected an integer >= 1, got {batch_size!r}")
        super().__init__(surrogate.spec, surrogate.space, surrogate.state, surrogate.diagnostics, surrogate.asked)
        self.batch_size = batch_size

    def predict(self, X: Any) -> Any:
        return self._batched(super().predict, X)

    def uncertainty(self, X: Any) -> Any:
        return self._batched(super().uncertainty, X)

    def gradient(self, X: Any) -> Any:
        return self._batched(super().gradient, X)

    def _at(self, of_points: Callable[..., Any], X: Any) -> Any:
        if isinstance(X, jax.core.Tracer):
            return super()._at(of_points, X)
        return evaluate(of_points, self.spec, self.space, self.state, X, self.batch_size)

    def _batched(self, compute: Callable[[Any], np.ndarray], X: Any) -> Any:
        if isinstance(X, Iterator):
            return (compute(batch) for batch in _batches(X, self.batch_size))
        if np.ndim(X) < 2 or isinstance(X, jax.core.Tracer):
            return compute(X)
        parts = [compute(X[first : first + self.batch_size]) for first in range(0, len(X), self.batch_size)]
        return np.concatenate(parts) if parts else compute(X)


def _batches(parts: Iterable[Any], size: int) -> Iterator[np.ndarray]:
    """(size, d) arrays, the last one of fewer rows, of points and arrays of points."""
    waiting: list[np.ndarray] = []
    n_waiting = 0
    for part in parts:
        rows = np.atleast_2d(np.asarray(part, dtype=float))
        while len(rows):
            taken, rows = rows[: size - n_waiting], rows[size - n_waiting :]
            waiting.append(taken)
            n_waiting += len(taken)
            if n_waiting == size:
                yield np.concatenate(waiting)
                waiting, n_waiting = [], 0
    if waiting:
        yield np.concatenate(waiting)


for _kind in (CachedSurrogate, VectorizedSurrogate):
    jax.tree_util.register_pytree_node(_kind, *PLAIN)
