"""Sampling designs: each fills the cube in its own way, and a seed fixes every bit."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import qmc

from surrogate_core import Integer, SearchSpace, sampling
from surrogate_core.sampling import Sampling, feasible_sample, sample

DESIGNS = get_args(Sampling)
counts, dims, seeds = st.integers(1, 70), st.integers(1, 6), st.integers(0, 2**31 - 1)


@pytest.mark.parametrize("design", DESIGNS)
@given(n=counts, d=dims, seed=seeds)
def test_a_design_is_in_the_cube_and_a_seed_fixes_it(design: Sampling, n: int, d: int, seed: int) -> None:
    points = sample(design, n, d, seed)
    assert points.shape == (len(points), d)
    assert points.dtype == np.float64
    assert 1 <= len(points) <= n
    if design != "grid":
        assert len(points) == n
    assert ((points >= 0) & (points <= 1)).all()
    assert points.tobytes() == sample(design, n, d, seed).tobytes()
    assert len(np.unique(points, axis=0)) == len(points)


@pytest.mark.parametrize("design", DESIGNS)
@given(n=counts, d=dims, seed=seeds)
def test_another_seed_gives_another_design_but_for_a_grid(design: Sampling, n: int, d: int, seed: int) -> None:
    same = sample(design, n, d, seed).tobytes() == sample(design, n, d, seed + 1).tobytes()
    assert same == (design == "grid")


@given(n=counts, d=dims, seed=seeds)
def test_a_latin_hypercube_has_one_point_in_each_of_n_slices_of_every_axis(n: int, d: int, seed: int) -> None:
    slices = np.floor(n * sample("latin_hypercube", n, d, seed)).astype(int)
    assert (np.sort(slices, axis=0) == np.arange(n)[:, None]).all()


@given(n=counts, d=dims, seed=seeds)
def test_sobol_points_are_the_first_of_scipys_sequence_however_many_are_asked_for(n: int, d: int, seed: int) -> None:
    sequence = qmc.Sobol(d, scramble=True, rng=seed).random_base2(7)
    assert sample("sobol", n, d, seed).tobytes() == np.ascontiguousarray(sequence[:n]).tobytes()


@given(k=st.integers(0, 6), d=dims, seed=seeds)
def test_a_power_of_two_of_sobol_points_is_balanced_on_every_axis(k: int, d: int, seed: int) -> None:
    n = 2**k
    slices = np.floor(n * sample("sobol", n, d, seed)).astype(int)
    assert (np.sort(slices, axis=0) == np.arange(n)[:, None]).all()


@pytest.mark.parametrize(
    ("n", "d", "sides"),
    [
        (1, 3, (1, 1, 1)),
        (9, 2, (3, 3)),
        (10, 2, (3, 3)),
        (8, 2, (3, 2)),
        (5, 1, (5,)),
        (8, 3, (2, 2, 2)),
        (2, 4, (2, 1, 1, 1)),
    ],
)
def test_a_grid_has_sides_that_are_as_equal_as_they_can_be(n: int, d: int, sides: tuple[int, ...]) -> None:
    points = sample("grid", n, d, 0)
    for side, column in zip(sides, points.T, strict=True):
        values = np.unique(column)
        assert values.tolist() == (np.linspace(0, 1, side).tolist() if side > 1 else [0.5])
    assert len(points) == np.prod(sides)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("halton", 4, 2, 0), "sampling: expected one of sobol, latin_hypercube, random, grid, got 'halton'"),
        ((None, 4, 2, 0), "sampling: .*got None"),
        (("sobol", 0, 2, 0), "n_samples: expected an integer >= 1, got 0"),
        (("grid", -3, 2, 0), "n_samples: .*got -3"),
    ],
    ids=str,
)
def test_a_mistake_is_told_with_what_was_given(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(*arguments)


def test_a_space_of_more_points_than_can_be_counted_is_drawn_from_like_any_other() -> None:
    space = SearchSpace({f"x{i}": Integer(0, 100) for i in range(11)})
    assert feasible_sample(space, "sobol", 8, seed=0).shape == (8, 11)


def test_of_a_space_of_few_points_each_is_looked_at_and_a_constraint_asked_a_few_times() -> None:
    asked = []

    def on_the_ridge(a: int, b: int) -> float:
        asked.append((a, b))
        return abs(a - b) - 1

    space = SearchSpace({"a": Integer(1, 20), "b": Integer(1, 20)}, [on_the_ridge])
    U = feasible_sample(space, "sobol", 100, seed=0)
    assert len(np.unique(space.decode(U), axis=0)) == len(U) == 20 + 2 * 19
    assert len(asked) <= 5 * 400


def test_more_points_than_are_looked_at_for_constraints_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MOST_DRAWN", 8)
    space = SearchSpace({"a": Integer(1, 20), "b": Integer(1, 20)})
    assert len(feasible_sample(space, "sobol", 20, seed=0)) == 20
