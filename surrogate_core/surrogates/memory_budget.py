"""What fits in memory: the surrogate to begin with, one like another that takes less, and how many rows would fit."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax import Array

from surrogate_core.dataset import Dataset
from surrogate_core.surrogates.base import Estimate, FittedSurrogate, Surrogate
from surrogate_core.surrogates.gaussian_process import GPSurrogate
from surrogate_core.surrogates.neural_network import NeuralSurrogate
from surrogate_core.surrogates.random_forest import RandomForestSurrogate
from surrogate_core.surrogates.streaming import ParquetRows


class Choice(NamedTuple):
    """A surrogate and what it is expected to take; `estimates`: of all that were looked at, by their names."""

    surrogate: Surrogate
    estimate: Estimate
    estimates: dict[str, Estimate]


def select_surrogate(n_samples: int, n_dims: int, memory_budget_mb: float) -> Choice:
    """The surrogate to begin with for data of a size, of which nothing else is known, within a memory budget.

    The first of `PREFERRED` that fits: a Gaussian process, with fewer inducing points, a network, ever smaller forests.

    Args:
        n_samples: rows.
        n_dims: variables.
        memory_budget_mb: by how much the process may grow, in MiB.

    Raises:
        ValueError: a number is not positive, or nothing fits in the budget.
    """
    for name, value in (("n_samples", n_samples), ("n_dims", n_dims), ("memory_budget_mb", memory_budget_mb)):
        if not isinstance(value, int | float | np.number) or not value > 0:
            raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    estimates = {}
    for spec in PREFERRED:
        estimates[str(spec)] = estimate = spec.estimate(n_samples, n_dims)
        if estimate.memory_mb <= memory_budget_mb:
            return Choice(spec, estimate, estimates)
    least = min(estimate.memory_mb for estimate in estimates.values())
    raise ValueError(
        f"memory_budget_mb: expected {least:.0f} or more for {n_samples} rows of {n_dims}, got {memory_budget_mb:g}"
    )


PREFERRED: tuple[Surrogate, ...] = (
    GPSurrogate(),
    GPSurrogate(max_exact=1000, n_inducing=512),
    NeuralSurrogate(),
    RandomForestSurrogate(),
    RandomForestSurrogate(n_estimators=50, max_depth=6),
)
select_memory_conscious_surrogate = select_surrogate


def within_memory(
    spec: Surrogate,
    n_samples: int,
    n_dims: int,
    memory_budget_mb: float,
    derivatives: bool = False,
    bytes_per_row: float = 0.0,
) -> Surrogate:
    """A spec whose fit fits in a memory budget: the one given or, if it takes too much, the nearest that takes less.

    A Gaussian process has fewer inducing points then, `auto` leaves out what does not fit.

    Args:
        spec: asked for.
        n_samples: rows.
        n_dims: variables.
        memory_budget_mb: by how much the process may grow, in MiB.
        derivatives: whether the rows have gradients.
        bytes_per_row: that the rows take themselves, where they are still to be read.

    Raises:
        ValueError: nothing like it fits; it says how many rows would, and what else.
    """

    def takes(one: Surrogate, n: int) -> float:
        return one.estimate(n, n_dims, derivatives).memory_mb + 1e-6 * n * bytes_per_row

    specs = [spec, *spec.within(memory_budget_mb)]
    found = next((one for one in specs if takes(one, n_samples) <= memory_budget_mb), None)
    if found is not None:
        return found
    needed = min(takes(one, n_samples) for one in specs)
    would = []
    if n := most(lambda n: min(takes(one, n) for one in specs) <= memory_budget_mb, n_samples):
        would.append(f"{n} rows would fit")
    try:
        other = select_surrogate(n_samples, n_dims, memory_budget_mb - 1e-6 * n_samples * bytes_per_row)
        would.append(f"so would {other.surrogate} ({other.estimate.memory_mb:.0f} MB)")
    except ValueError:
        pass
    raise ValueError(
        f"memory_budget_mb: expected {needed:.0f} or more for {spec} on {n_samples} rows of {n_dims}, "
        f"got {memory_budget_mb:g}; {', '.join(would) or 'nothing would fit'}"
    )


def fit_within_memory(spec: Surrogate, path: Path, memory_budget_mb: float, key: Array) -> FittedSurrogate:
    """Fits a spec, or one like it that takes less, to a file of `Dataset.to_bytes`, within a memory budget.

    A network learns the file a chunk at a time where all of it at once takes too much.

    Raises:
        ValueError: nothing like it fits, as `within_memory` says.
    """
    file = ParquetRows.of(path, None, "objective")
    n, d, told = file.n_rows, file.space.n_dims, file.tells_derivatives
    row = 250 + 61 * d * (1 + told)  # bytes, as measured: reading it, and what is kept of it
    if isinstance(spec, NeuralSurrogate) and spec.estimate(n, d, told).memory_mb + 1e-6 * n * row > memory_budget_mb:
        return spec.fit_parquet(path, memory_budget_mb, key=key)
    chosen = within_memory(spec, n, d, memory_budget_mb, told, row)
    return chosen.fit(Dataset.from_bytes(path.read_bytes()), key)


def most(fits: Callable[[int], bool], n: int) -> int:
    """The most rows below n that fit, where fewer rows take less; 0 for none."""
    low, high = 0, n
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
