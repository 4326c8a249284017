"""What fits in memory: specs that take less, errors that say what would fit, and files learned a chunk at a time."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surrogate_core import (
    AutoSurrogate,
    DataCollector,
    Dataset,
    Float,
    GPSurrogate,
    NeuralSurrogate,
    ParallelDataCollector,
    RandomForestSurrogate,
    SearchSpace,
)
from surrogate_core.surrogates.base import Surrogate
from surrogate_core.surrogates.memory_budget import fit_within_memory, within_memory


def test_what_fits_is_fitted_as_it_was_asked_for() -> None:
    for spec in (GPSurrogate(kernel="rbf"), NeuralSurrogate(), RandomForestSurrogate(n_estimators=30)):
        assert within_memory(spec, 500, 5, 2000.0) == spec


def test_a_gaussian_process_has_fewer_inducing_points_where_memory_is_short() -> None:
    spec = GPSurrogate(kernel="rbf", n_starts=3)
    found = [within_memory(spec, 20_000, 10, budget) for budget in (2000.0, 500.0, 450.0)]
    assert found[0] == spec
    sizes = [one.n_inducing for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    assert all((one.kernel, one.n_starts) == ("rbf", 3) for one in found)
    assert within_memory(AutoSurrogate(), 500, 5, 300.0) == AutoSurrogate(memory_budget_mb=300.0)


def test_where_nothing_fits_the_error_says_what_would() -> None:
    big = RandomForestSurrogate(n_estimators=500, max_depth=12)
    message = r"memory_budget_mb: expected \d+ or more for .*random_forest.* on 50000 rows of 10, got 300; so would"
    with pytest.raises(ValueError, match=message):
        within_memory(big, 50_000, 10, 300.0)
    with pytest.raises(
        ValueError, match=r"gaussian_process.* on 500000 rows of 10, got 200; (\d+) rows would fit$"
    ) as told:
        within_memory(GPSurrogate(), 500_000, 10, 200.0)
    found = re.search(r"(\d+) rows would fit", str(told.value))
    assert found
    assert within_memory(GPSurrogate(), int(found[1]), 10, 200.0)
    with pytest.raises(ValueError, match=r"; nothing would fit$"):
        within_memory(GPSurrogate(), 100, 2, 1.0)


@settings(max_examples=40)
@given(
    spec=st.sampled_from([GPSurrogate(), NeuralSurrogate(), RandomForestSurrogate(), AutoSurrogate()]),
    n=st.integers(10, 10**6),
    d=st.integers(1, 50),
    budget=st.floats(1, 4000),
)
def test_what_is_chosen_fits(spec: Surrogate, n: int, d: int, budget: float) -> None:
    try:
        found = within_memory(spec, n, d, budget)
    except ValueError:
        assert spec.estimate(n, d).memory_mb > budget
    else:
        assert found.estimate(n, d).memory_mb <= budget
        assert found.kind == spec.kind


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X = np.random.default_rng(0).uniform(-1, 1, (120_000, 3))
    path = tmp_path_factory.mktemp("rows") / "dataset.parquet"
    path.write_bytes(Dataset(X, np.sin(3 * X[:, 0]) + X[:, 1] ** 2, SearchSpace.from_bounds([(-1, 1)] * 3)).to_bytes())
    return path


def test_a_network_learns_a_file_in_chunks_where_memory_is_short(path: Path) -> None:
    spec = NeuralSurrogate(ensemble_size=2, hidden_layers=(8,), n_epochs=1, batch_size=1024)
    fitted = fit_within_memory(spec, path, 260.0, jax.random.key(0))
    assert 0 < fitted.diagnostics["chunk_rows"] < 120_000
    assert "chunk_rows" not in fit_within_memory(spec, path, 2000.0, jax.random.key(0)).diagnostics


def test_a_forest_that_does_not_fit_is_refused_before_it_is_fitted(path: Path) -> None:
    with pytest.raises(ValueError, match=r"memory_budget_mb: expected .* rows would fit"):
        fit_within_memory(RandomForestSurrogate(), path, 200.0, jax.random.key(0))


@pytest.mark.parametrize("collector", [DataCollector, ParallelDataCollector])
def test_more_rows_than_fit_are_refused_before_the_function_is_called(collector: type[DataCollector]) -> None:
    calls: list[object] = []

    def count(x: np.ndarray) -> float:
        calls.append(x)
        return 0.0

    for bounds in ([(0.0, 1.0)] * 5, SearchSpace({"x": Float(0, 1)})):
        within = collector(count, bounds, memory_budget_mb=100)
        message = r"n_samples: expected at most (\d+), which fit in memory_budget_mb=100, got 1000000 of \d var"
        with pytest.raises(ValueError, match=message):
            within.collect(10**6)
    assert calls == []
    assert collector(lambda x: 0.0, [(0, 1)] * 5, memory_budget_mb=100).collect(50).n_samples == 50
