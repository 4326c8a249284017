"""Collecting evaluations: a design in the unit cube, its points evaluated in parallel, their rows in a dataset."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surrogate_core.atomic import TEMPORARY
from surrogate_core.dataset import Dataset
from surrogate_core.evaluation import Evaluator
from surrogate_core.execution import ExecutorSpec, Kind
from surrogate_core.performance.profiler import operation
from surrogate_core.problems.black_box import call_with, check_signature
from surrogate_core.sampling import MOST_DRAWN, Sampling, feasible_sample, sample_in_parts
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


def check_memory(n_samples: int, n_dims: int, memory_budget_mb: float | None, *, by_name: bool) -> None:
    """Raise ValueError where collecting so many rows would take more memory than there is to be taken.

    Args:
        n_samples: rows.
        n_dims: variables.
        memory_budget_mb: by how much the process may grow; None for no limit.
        by_name: the function is called with names, and a journal remembers its calls.
    """
    fixed, row = (10.0, 1150 + 95 * n_dims) if by_name else (10.0, 140 + 41 * n_dims)  # as measured, in MB and bytes
    needed = fixed + 1e-6 * n_samples * row
    if memory_budget_mb is not None and needed > memory_budget_mb:
        most = max(0, int((memory_budget_mb - fixed) / row * 1e6))
        raise ValueError(
            f"n_samples: expected at most {most}, which fit in memory_budget_mb={memory_budget_mb:g}, got {n_samples} "
            f"of {n_dims} variables, which take about {needed:.0f} MB"
        )


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
        timeout: seconds after which a call is stopped and has failed; not here, nor in threads.
        retries: how many more times a call is tried that fails, or whose worker dies.
        memory_budget_mb: by how much the process may grow; `collect` refuses more rows than fit, which
            `collect_streaming` writes to a file.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        bounds: Sequence[tuple[float, float]] | SearchSpace,
        executor: ExecutorSpec | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
        memory_budget_mb: float | None = None,
    ):
        self.function = function
        self.space = bounds if isinstance(bounds, SearchSpace) else SearchSpace.from_bounds(bounds)
        self.executor = executor or ExecutorSpec("serial")
        self.timeout = timeout
        self.retries = retries
        self.memory_budget_mb = memory_budget_mb
        self._keywords = isinstance(bounds, SearchSpace)

    def collect(
        self, n_samples: int, sampling: Sampling = "sobol", seed: int = 0, on_progress: Progress | None = None
    ) -> Dataset:
        """Evaluates the function at the points of a design; a call that fails is a row with its reason."""
        check_memory(n_samples, self.space.n_dims, self.memory_budget_mb, by_name=self._keywords)
        return self.evaluate(design(self.space, sampling, n_samples, seed), on_progress)

    def evaluate(self, X: np.ndarray, on_progress: Progress | None = None) -> Dataset:
        """Evaluates the function at points, (n, d), in the problem's units."""
        with self._evaluator() as evaluator:
            return self._rows(evaluator, X, on_progress)

    def collect_streaming(
        self,
        n_samples: int,
        chunk_size: int = 10_000,
        path: str | Path = "dataset.parquet",
        sampling: Sampling = "sobol",
        seed: int = 0,
        on_progress: Progress | None = None,
    ) -> Path:
        """The rows of `collect` as a parquet file, of which one chunk at a time is in memory.

        `Dataset.from_bytes` reads the file, `NeuralSurrogate.fit_parquet` learns from it. Where points may repeat each
        other, as in a space without continuous variables, they do. What has been evaluated when this is interrupted is
        in the file.

        Args:
            n_samples: points.
            chunk_size: of which at most so many are a row group.
            path: of the file, which appears when it is complete.
            sampling: "sobol" or "random".
            seed: fixes every bit.
            on_progress: called with (done, total).

        Raises:
            ValueError: no points come one by one by that design, or too few meet the constraints.
        """
        if n_samples < 1:
            raise ValueError(f"n_samples: expected an integer >= 1, got {n_samples!r}")
        path, n_done = Path(path), 0
        report = on_progress or (lambda done, total: None)
        with self._evaluator() as evaluator, RowGroups(path) as groups:
            for X in self._chunks(n_samples, chunk_size, sampling, seed):
                before = n_done
                rows = self._rows(evaluator, X, lambda done, _: report(before + done, n_samples))  # noqa: B023
                groups.append(rows)
                n_done += len(X)
        return path

    def _chunks(self, n_samples: int, chunk_size: int, sampling: Sampling, seed: int) -> Iterator[np.ndarray]:
        n_drawn = n_made = 0
        for U in sample_in_parts(sampling, chunk_size, self.space.n_dims, seed):
            X = self.space.decode(U)
            if self.space.constraints:
                X = X[self.space.is_feasible(X)]
            n_drawn, X = n_drawn + len(U), X[: n_samples - n_made]
            n_made += len(X)
            if len(X):
                yield X
            if n_made == n_samples:
                return
            if n_drawn > MOST_DRAWN and n_made < 1e-3 * n_drawn:
                raise ValueError(
                    f"constraints: expected {n_samples} points that meet them, got {n_made} of {n_drawn}; narrow the "
                    "bounds to where they are met"
                )

    def _evaluator(self) -> Evaluator:
        if self._keywords:
            check_signature(self.function, self.space.names, getattr(self.function, "__name__", "function"))
        call = partial(call_with, self.function) if self._keywords else self.function
        return Evaluator(call, self.executor, self.timeout, self.retries)

    def _rows(self, evaluator: Evaluator, X: np.ndarray, on_progress: Progress | None) -> Dataset:
        return evaluate_points(evaluator, self.space, X, "collect", keywords=self._keywords, on_progress=on_progress)


class ParallelDataCollector(DataCollector):
    """A collector that calls the function in several workers at a time; the rows are the same however many there are.

    Args:
        function: as of `DataCollector`; lambdas and closures travel to other processes too.
        bounds: (low, high) pairs, or a `SearchSpace`.
        n_jobs: workers; None or -1 for one on each usable CPU, or for all of a Dask cluster.
        executor: "threads", "processes", "dask", "serial", or "auto": processes, unless calls are so short that they
            are sooner made here.
        address: of Dask's scheduler; None for a cluster of processes on this machine.
        timeout: seconds after which a call is stopped and has failed.
        retries: how many more times a call is tried that fails, or whose worker dies.
        memory_budget_mb: as of `DataCollector`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        bounds: Sequence[tuple[float, float]] | SearchSpace,
        n_jobs: int | None = None,
        *,
        executor: Kind = "auto",
        address: str | None = None,
        timeout: float | None = None,
        retries: int = 1,
        memory_budget_mb: float | None = None,
    ):
        spec = ExecutorSpec(executor, None if n_jobs == -1 else n_jobs, address)
        super().__init__(function, bounds, spec, timeout=timeout, retries=retries, memory_budget_mb=memory_budget_mb)


class RowGroups:
    """A parquet file of datasets, a row group each, which is there once it is closed; of nothing there is no file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f"{TEMPORARY}{path.name}")
        self._writer: pq.ParquetWriter | None = None

    def append(self, rows: Dataset) -> None:
        """Raises ValueError where the rows tell of derivatives or noise, and the first ones did not, or not at all."""
        table = rows.to_table()
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._temporary, table.schema.with_metadata(rows.about()))
        known, found = self._writer.schema.names, table.schema.names
        if unknown := [name for name in found if name not in known]:
            raise ValueError(f"{unknown[0]}: expected what the first chunk told of, which was {', '.join(known)}")
        for name in known:
            if name not in found:  # nothing of it is known in this chunk
                table = table.append_column(name, pa.nulls(len(table), pa.float64()))
        self._writer.write_table(table.select(known).cast(self._writer.schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            self._writer.close()
            self._temporary.replace(self.path)


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
