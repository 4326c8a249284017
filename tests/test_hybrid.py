"""Stacking: which members count, how certain the whole is, and what is refused."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tolerances import ROUNDING

from surrogate_core import Dataset, GPSurrogate, HybridSurrogate, RandomForestSurrogate, SearchSpace
from surrogate_core.parallel import in_threads
from surrogate_core.sampling import sample
from surrogate_core.surrogates.files import surrogate_files
from surrogate_core.surrogates.hybrid import convex_weights

CUBE = SearchSpace.from_bounds([(0, 1)] * 2)
FOREST = RandomForestSurrogate(n_estimators=30)
QUICK = HybridSurrogate(members=(GPSurrogate(n_starts=2), FOREST))


def wavy(U: np.ndarray) -> np.ndarray:
    return np.sin(6 * U[:, 0]) + U[:, 1] ** 2


def steps(U: np.ndarray) -> np.ndarray:
    return np.floor(5 * U[:, 0]) % 2 + np.floor(4 * U[:, 1]) % 2 + 0.2 * U[:, 1]


def rows(f: Any, n: int, seed: int = 1, deviation: float = 0.0) -> Dataset:
    U = sample("sobol", n, 2, seed)
    return Dataset(U, f(U) + deviation * np.random.default_rng(seed).standard_normal(n), CUBE)


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(3, 30))
def test_weights_are_convex_and_none_near_them_is_better(seed: int, K: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    P, z, weight = rng.standard_normal((n, K)), rng.standard_normal(n), rng.uniform(0.1, 1.0, n)
    w = convex_weights(P, z, weight)
    assert (w >= 0).all()
    assert w.sum() == pytest.approx(1.0, rel=ROUNDING)
    least = weight @ (z - P @ w) ** 2
    for corner in np.eye(K):
        near = 0.99 * w + 0.01 * corner
        assert weight @ (z - P @ near) ** 2 >= least * (1 - 1e-6)


def test_the_member_that_predicts_best_counts_most() -> None:
    smooth, rough = (QUICK.fit(rows(f, 64)) for f in (wavy, steps))
    (gp, forest), (gp_of_steps, forest_of_steps) = (
        [member["weight"] for member in fitted.diagnostics["members"]] for fitted in (smooth, rough)
    )
    assert gp > 0.95
    assert forest_of_steps > 0.2
    assert forest_of_steps + gp_of_steps == pytest.approx(1.0)
    assert [member.kind for member in smooth.spec.members] == ["gaussian_process"]  # the forest is dropped
    assert smooth.asked == QUICK
    at = sample("sobol", 128, 2, seed=5)
    assert smooth.predict(at) == pytest.approx(GPSurrogate(n_starts=2).fit(rows(wavy, 64)).predict(at), abs=0.02)
    assert forest < 0.05


def test_it_is_about_as_good_as_its_best_member() -> None:
    at = sample("sobol", 256, 2, seed=5)
    for f in (wavy, steps):
        errors = [
            np.mean([np.sqrt(np.mean((spec.fit(rows(f, 64, seed)).predict(at) - f(at)) ** 2)) for seed in range(3)])
            for spec in (QUICK, *QUICK.members)
        ]
        assert errors[0] < 1.15 * min(errors[1:])


@pytest.mark.parametrize("f", [wavy, steps])
def test_the_intervals_hold_what_was_not_seen(f: Any) -> None:
    covered = []
    for seed in range(5):
        fitted = QUICK.fit(rows(f, 80, seed, deviation=0.1), jax.random.key(seed))
        at = rows(f, 300, seed + 10, deviation=0.1)
        low, high = fitted.interval(at.X)
        covered.append(np.mean((low <= at.y) & (at.y <= high)))
        s = fitted.uncertainty(at.X)
        assert s.max() > 1.2 * s.min()  # no constant
    assert 0.88 <= np.mean(covered) <= 0.99


def test_derivatives_and_noise_go_to_the_members() -> None:
    data = rows(wavy, 16)
    slopes = np.column_stack([6 * np.cos(6 * data.X[:, 0]), 2 * data.X[:, 1]])
    at = sample("sobol", 128, 2, seed=5)
    spec = HybridSurrogate(members=("gaussian_process",))
    with_them, without = (
        np.abs(spec.fit(Dataset(data.X, data.y, CUBE, gradients=given)).predict(at) - wavy(at)).mean()
        for given in (slopes, None)
    )
    assert with_them < 0.3 * without
    noisy = Dataset(data.X, data.y + 3 * (np.arange(16) == 5), CUBE, noise=np.where(np.arange(16) == 5, 3.0, 1e-3))
    assert abs(spec.fit(noisy).predict(data.X[5]) - data.y[5]) < 0.5


def test_a_fit_that_goes_on_leaves_nothing_out_until_rows_have_grown() -> None:
    data = rows(wavy, 40)
    first = QUICK.fit(data.take(range(32)))
    on, anew = (
        QUICK.fit(data.take(range(36)), None, first),
        QUICK.fit(data.take(range(33)), None, QUICK.fit(rows(wavy, 8))),
    )
    assert (on.diagnostics["cross_validated"], anew.diagnostics["cross_validated"]) == (32, 33)
    assert on.diagnostics["n_rows"] == 36
    assert on.state.weights.tolist() == first.state.weights.tolist()


def test_few_rows_count_all_members_alike() -> None:
    fitted = QUICK.fit(rows(wavy, 3))
    assert [member["weight"] for member in fitted.diagnostics["members"]] == [0.5, 0.5]
    assert np.isfinite(fitted.predict(sample("sobol", 8, 2, seed=5))).all()


def test_threads_change_no_bit() -> None:
    data = rows(wavy, 24)
    alone = surrogate_files(QUICK.fit(data))
    assert in_threads(lambda _: surrogate_files(QUICK.fit(data)), range(2), n_workers=2) == [alone, alone]


def test_members_are_given_by_name_by_values_or_as_they_are() -> None:
    spec = HybridSurrogate(members=["gaussian_process", {"kind": "random_forest", "max_depth": 4}, FOREST])
    assert spec.members == (GPSurrogate(), RandomForestSurrogate(max_depth=4), FOREST)
    assert HybridSurrogate(**{k: v for k, v in spec.to_config().items() if k != "kind"}) == spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": ()}, r"members: expected at least one surrogate, got \(\)"),
        ({"members": "gaussian_process"}, "members: expected at least one surrogate, got 'gaussian_process'"),
        ({"members": ("spline",)}, "members: expected a kind of gaussian_process, neural_network, .*, got 'spline'"),
        ({"members": (3,)}, "members: expected surrogates of the kinds gaussian_process, .*, got 3"),
        ({"members": (QUICK,)}, "members: expected surrogates of the kinds gaussian_process, "),
        ({"members": ({"kind": "random_forest", "depth": 3},)}, "members: random_forest: .*'depth'"),
        (
            {"members": ({"kind": "random_forest", "max_depth": 99},)},
            "members: random_forest: max_depth: expected an integer from 1 to 12, got 99",
        ),
        ({"members": (GPSurrogate(transform="log"),)}, "members: expected the transform standardize, .*transform=log"),
        ({"folds": 1}, "folds: expected an integer >= 2, got 1"),
        ({"transform": "auto"}, "transform: expected one of standardize, log, yeo_johnson, got 'auto'"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        HybridSurrogate(**options)
