"""Collecting evaluations: a design in the unit cube, its points evaluated in parallel, their rows in a dataset."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from surrogate_core.dataset import Dataset
from surrogate_core.evaluation import Evaluator
from surrogate_core.execution import ExecutorSpec
from surrogate_core.performance.profiler import operation
from surrogate_core.problems.black_box import call_with, check_signature
from surrogate_core.sampling import MOST_DRAWN, Sampling, feasible_sample
from surrogate_core.space import SearchSpace

Progress = Callable[[int, int], None]


def design(space: SearchSpace, sampling: Sampling, n_samples: int, seed: int) -> np.ndarray:
    """Points of a sampling design that meet the space's constraints, none twice, (n_samples, d) in the problem's units.

    They are fewer where a space without continuous variables has no more.

    Raises:
        ValueError: too few points meet them.
    """
    U = feasible_sample(space, sampling, n_samples, seed)
    if space.constraints and len(U) < (1 if sampling == "grid" or np.isfinite(space.n_points) else n_samples):
        raise ValueError(
            f"constraints: expected {n_samples} points that meet them, got {len(U)} of a design of about {MOST_DRAWN}; "
            "narrow the bounds to where they are met"
        )
    return space.decode(U)


def evaluate_points(
    evaluator: Evaluator,
    space: SearchSpace,
    X: np.ndarray,
    label: str,
    *,
    sign: float = 1.0,
    keywords: bool = True,
    on_progress: Progress | None = None,
) -> Dataset:
    """Rows of the evaluations of points, in their order; a failed one is a row with its reason.

    Args:
        evaluator: calls the black box, or answers from its journal.
        space: of the points.
        X: (n, d) in the problem's units.
        label: what this batch is, part of its keys in the journal.
        sign: -1 turns a problem that maximizes round. This is the one place where that happens.
        keywords: the black box takes parameters as keywords, else one (d,) array.
        on_progress: called with (done, total).
    """
    keys = None
    if evaluator.remembers:
        keys = [f"{label}/{i}/{hashlib.sha256(x.tobytes()).hexdigest()[:16]}" for i, x in enumerate(X)]
    arguments: Any = [space.params(x) for x in X] if keywords else X
    with operation("evaluate"):
        found = evaluator.evaluate(keys, arguments, on_progress)
    others = found.others
    status, reason = np.full(len(X), "ok", dtype=object), np.full(len(X), "", dtype=object)
    gradients, noise = np.full(X.shape, np.nan), np.full(len(X), np.nan)
    for i, evaluation in others.items():
        status[i], reason[i] = evaluation.status, evaluation.reason
        if evaluation.gradient is not None:
            gradients[i] = evaluation.gradient
        if evaluation.noise is not None:
            noise[i] = evaluation.noise
    return Dataset(X, sign * found.values, space, status.astype(str), reason.astype(str), sign * gradients, noise)


class DataCollector:
    """Collects evaluations of a function within bounds.

    Args:
        function: called with a (d,) array where bounds are given; where a space is, with keywords, or with one dict, if
            it has a single parameter that no variable is named like.
        bounds: (low, high) pairs, or a `SearchSpace`.
        executor: where the function is called; by default here, one call after the other.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        bounds: Sequence[tuple[float, float]] | SearchSpace,
        executor: ExecutorSpec | None = None,
    ):
        self.function = function
        self.space = bounds if isinstance(bounds, SearchSpace) else SearchSpace.from_bounds(bounds)
        self.executor = executor or ExecutorSpec("serial")
        self._keywords = isinstance(bounds, SearchSpace)

    def collect(
        self, n_samples: int, sampling: Sampling = "sobol", seed: int = 0, on_progress: Progress | None = None
    ) -> Dataset:
        """Evaluates the function at the points of a design; a call that fails is a row with its reason."""
        return self.evaluate(design(self.space, sampling, n_samples, seed), on_progress)

    def evaluate(self, X: np.ndarray, on_progress: Progress | None = None) -> Dataset:
        """Evaluates the function at points, (n, d), in the problem's units."""
        if self._keywords:
            check_signature(self.function, self.space.names, getattr(self.function, "__name__", "function"))
        call = partial(call_with, self.function) if self._keywords else self.function
        with Evaluator(call, self.executor) as evaluator:
            return evaluate_points(
                evaluator, self.space, X, "collect", keywords=self._keywords, on_progress=on_progress
            )


def collect_data(
    function: Callable[..., Any],
    n_samples: int,
    bounds: Sequence[tuple[float, float]] | SearchSpace,
    sampling: Sampling = "sobol",
    seed: int = 0,
    executor: ExecutorSpec | None = None,
) -> Dataset:
    """`DataCollector(function, bounds, executor).collect(n_samples, sampling, seed)`.

    Example:
        >>> collect_data(lambda x: float(x @ x), n_samples=4, bounds=[(-1, 1)] * 2).n_samples
        4
    """
    return DataCollector(function, bounds, executor).collect(n_samples, sampling, seed)
