"""Collecting evaluations: a design in the unit cube, its points evaluated in parallel, their rows in a dataset."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from surrogate_core.dataset import Dataset
from surrogate_core.evaluation import Evaluator
from surrogate_core.execution import ExecutorSpec
from surrogate_core.sampling import Sampling, sample
from surrogate_core.space import SearchSpace

Progress = Callable[[int, int], None]


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
    keys = [f"{label}/{i}/{hashlib.sha256(x.tobytes()).hexdigest()[:16]}" for i, x in enumerate(X)]
    arguments: list[Any] = [space.params(x) for x in X] if keywords else list(X)
    evaluations = evaluator.evaluate(keys, arguments, on_progress)
    y = [sign * evaluation.value for evaluation in evaluations]
    status, reason = [e.status for e in evaluations], [e.reason for e in evaluations]
    return Dataset(X, np.array(y), space, np.array(status), np.array(reason, dtype=str))


class DataCollector:
    """Collects evaluations of a function within bounds.

    Args:
        function: called with a (d,) array where bounds are given, with keywords where a space is.
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
        X = self.space.decode(sample(sampling, n_samples, self.space.n_dims, seed))
        call = _Keywords(self.function) if self._keywords else self.function
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


class _Keywords:
    """Calls a function with the entries of one dict; a class, so that it can travel to a process."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, params: dict[str, Any]) -> Any:
        return self.function(**params)
