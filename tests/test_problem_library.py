"""Every problem of the library knows its optimum: it is attained, and neither samples nor small steps beat it."""

import numpy as np
import pytest
from tolerances import ROUNDING

from surrogate_core.problems import analytic
from surrogate_core.problems.library import PROBLEMS
from surrogate_core.problems.problem import Problem
from surrogate_core.sampling import feasible_sample

CHEAP = sorted(set(PROBLEMS) - {"svr_diabetes"})
REAL = sorted(set(CHEAP) - {"gear_train", "pressure_vessel"})
CONSTRAINED = {"pressure_vessel", "welded_beam", "spring"}
SLACK = 1e-9  # of the unit, where a minimum is known to so many digits


def at(problem: Problem, u: np.ndarray) -> float:
    return problem(problem.space.params(problem.space.decode(u)))


def best(problem: Problem) -> np.ndarray:
    """The minimizer in unit-cube coordinates."""
    return problem.space.encode(problem.space.point(problem.minimizer))


def least(problem: Problem, U: np.ndarray) -> float:
    """The least value at points that meet the constraints."""
    meets = problem.space.is_feasible(problem.space.decode(U))
    return min(at(problem, u) for u in U[meets]) if meets.any() else np.inf


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_the_minimum_is_attained_inside_the_space(name: str) -> None:
    problem = PROBLEMS[name]()
    assert problem.name == name
    assert problem.source
    assert (best(problem) >= -ROUNDING).all()
    assert (best(problem) <= 1 + ROUNDING).all()
    assert problem.space.is_feasible(problem.space.point(problem.minimizer))
    assert bool(problem.space.constraints) == (name in CONSTRAINED)
    rounding = 1e-4 if name == "svr_diabetes" else 1e-9  # libsvm stops at a tolerance of its own
    assert problem(problem.minimizer) == pytest.approx(problem.minimum, rel=rounding, abs=1e-11)


@pytest.mark.parametrize("name", CHEAP)
def test_no_sobol_sample_beats_the_minimum(name: str) -> None:
    problem = PROBLEMS[name]()
    U = feasible_sample(problem.space, "sobol", 512, seed=0)
    assert len(U) == 512
    values = [at(problem, u) for u in U]
    assert min(values) >= problem.minimum - SLACK
    assert max(values) > problem.minimum + SLACK


@pytest.mark.parametrize("name", REAL)
def test_no_small_step_beats_the_minimum(name: str) -> None:
    problem = PROBLEMS[name]()
    rng = np.random.default_rng(0)
    for width in (1e-1, 1e-2, 1e-3, 1e-4):
        steps = rng.normal(0, width, (100, problem.space.n_dims))
        assert least(problem, np.clip(best(problem) + steps, 0, 1)) >= problem.minimum - SLACK


@pytest.mark.parametrize("name", sorted(CONSTRAINED))
def test_at_the_minimum_constraints_are_just_met(name: str) -> None:
    problem = PROBLEMS[name]()
    x = problem.space.point(problem.minimizer)
    assert -1e-4 <= problem.space.violation(x) <= 0
    gained = [at(problem, best(problem) + step) < problem.minimum for step in np.eye(problem.space.n_dims) * -1e-3]
    assert any(gained)  # what keeps the minimum where it is are the constraints


def test_the_thicknesses_of_the_vessel_are_those_that_can_be_bought() -> None:
    problem = PROBLEMS["pressure_vessel"]()
    neighbours = [
        {**problem.minimizer, "Ts": 0.8125 + 0.0625 * i, "Th": 0.4375 + 0.0625 * j} for i in (-1, 0) for j in (-1, 0)
    ]
    meets = [bool(problem.space.is_feasible(problem.space.point(params))) for params in neighbours]
    assert meets == [False, False, False, True]


def test_the_svr_is_a_little_worse_beside_its_best_known_hyperparameters() -> None:
    problem = PROBLEMS["svr_diabetes"]()
    for i in range(3):
        beside = best(problem)
        beside[i] -= 0.2
        assert at(problem, beside) > problem.minimum


@pytest.mark.parametrize("minimizer", [(-np.pi, 12.275), (np.pi, 2.275), (3 * np.pi, 2.475)])
def test_branin_has_three_equal_minima(minimizer: tuple[float, float]) -> None:
    problem = analytic.branin()
    assert problem(dict(zip(problem.space.names, minimizer, strict=True))) == pytest.approx(problem.minimum)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_shifted_problem_has_the_same_minimum_elsewhere_in_its_box(name: str, seed: int) -> None:
    problem = PROBLEMS[name]()
    shifted = problem.shifted(seed)
    inside = (best(shifted) >= 0) & (best(shifted) <= 1)
    assert inside.all()
    assert shifted(shifted.minimizer) == problem(problem.minimizer)
    widths = np.diff(shifted.space.bounds) / np.diff(problem.space.bounds)
    assert (widths >= 0.6 - ROUNDING).all()
    assert not np.isclose(best(shifted), 0.5).any()
    assert shifted.space == problem.shifted(seed).space != problem.shifted(seed + 1).space


@pytest.mark.parametrize("name", ["gear_train", "pressure_vessel", "svr_diabetes"])
def test_only_plain_real_variables_can_be_cut(name: str) -> None:
    with pytest.raises(ValueError, match="shift: expected real variables without steps or logarithm, got "):
        PROBLEMS[name]().shifted(0)


@pytest.mark.parametrize("make", [analytic.sphere, analytic.rosenbrock, analytic.levy, analytic.schwefel])
def test_dimensions_can_be_chosen(make: type) -> None:
    problem = make(7)
    assert problem.space.n_dims == 7
    assert problem(problem.minimizer) == pytest.approx(0, abs=1e-9)
