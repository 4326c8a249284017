"""From a surrogate to a design: many starts, bounds, valid designs in mixed and constrained spaces, what is told."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from scipy.optimize import OptimizeResult
from tolerances import DESCENT

from surrogate_core import (
    Categorical,
    Dataset,
    Float,
    GPSurrogate,
    GradientDescentOptimizer,
    Integer,
    LBFGSOptimizer,
    MultiStartOptimizer,
    SearchSpace,
    TrustRegionOptimizer,
)
from surrogate_core.acquisition import Name, Weights
from surrogate_core.execution import ExecutorSpec
from surrogate_core.optimizers.local import LocalOptimizer
from surrogate_core.optimizers.multi_start import distinct
from surrogate_core.optimizers.polish import drawn_into, valid
from surrogate_core.optimizers.registry import make_optimizer
from surrogate_core.optimizers.search import Aim
from surrogate_core.sampling import feasible_sample, sample
from surrogate_core.surrogates.base import FittedSurrogate

SPACE = SearchSpace({"a": Float(-4, 4), "b": Float(0.1, 10, log=True)})
MIXED = {"x": Float(0, 1), "n": Integer(1, 9), "s": Float(0, 1, step=0.1), "kind": Categorical(["p", "q", "r"])}
OPTIMIZERS: tuple[LocalOptimizer | MultiStartOptimizer, ...] = (
    GradientDescentOptimizer(),
    LBFGSOptimizer(),
    TrustRegionOptimizer(),
    MultiStartOptimizer(),
    MultiStartOptimizer(n_starts=4, optimizer=TrustRegionOptimizer()),
)
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.kind)
GOALS: tuple[Name, ...] = ("mean", "cautious", "exploring", "log_expected_improvement", "conservative")
SEARCH = MultiStartOptimizer()


def two_wells(X: np.ndarray) -> np.ndarray:
    """The deeper at (2, 2), the other at (-2, 2)."""
    a, b = X[:, 0], np.log10(X[:, 1] / 2)
    return (a**2 / 4 - 1) ** 2 - 0.15 * a + b**2


@cache
def wells() -> FittedSurrogate:
    X = SPACE.decode(sample("sobol", 48, 2, seed=0))
    return GPSurrogate(n_starts=2).fit(Dataset(X, two_wells(X), SPACE))


@cache
def mixed(*constraints: str) -> FittedSurrogate:
    """Least at x = 0.9, n = 7, s between 0.6 and 0.7, kind r."""
    space = SearchSpace(MIXED, constraints)
    X = space.decode(sample("sobol", 80, 4, seed=0))
    y = (X[:, 0] - 0.9) ** 2 + (X[:, 1] - 7) ** 2 / 20 + (X[:, 2] - 0.65) ** 2 + 0.3 * (X[:, 3] != 2)
    return GPSurrogate(n_starts=2).fit(Dataset(X, y, space))


@optimizers
@pytest.mark.parametrize("goal", GOALS)
def test_a_design_is_found_from_a_point_nearby(optimizer: Any, goal: Name) -> None:
    fitted = wells()
    found = optimizer.optimize(fitted, [1.0, 1.0], goal=goal)
    assert found.x.shape == (2,)
    assert SPACE.bounds[0, 0] <= found.x[0] <= SPACE.bounds[0, 1]
    assert found.fun == pytest.approx(float(fitted.predict(found.x)))
    assert found.metadata["params"] == SPACE.params(found.x)
    assert found.nfev > found.nit > 0
    assert found.violation == 0
    assert found.optima[0].x.tolist() == found.x.tolist()
    if goal == "mean":
        assert found.x == pytest.approx([2.07, 2.0], abs=0.15)
        assert found.fun <= fitted.predict([1.0, 1.0])
        assert found.success == (optimizer.kind != "gradient_descent")  # whose steps have not ended
    path = found.trajectory
    assert len(path.fun) == len(path.rate) == len(path.accepted) == len(path.x)
    assert np.nanmin(path.fun) == pytest.approx(found.optima[0].value, abs=1e-9)
    if goal == "mean":
        assert np.nanmin(fitted.predict(path.x)) == pytest.approx(found.fun, abs=1e-9)


def test_many_starts_find_both_wells_and_rank_them() -> None:
    found = SEARCH.optimize(wells())
    assert len(found.optima) >= 2
    assert [one.value for one in found.optima] == sorted(one.value for one in found.optima)
    deeper, other = found.optima[:2]
    assert (deeper.x[0] > 1.5, other.x[0] < -1.5) == (True, True)
    assert deeper.predicted == pytest.approx(float(wells().predict(deeper.x)))
    assert deeper.uncertainty == pytest.approx(float(wells().uncertainty(deeper.x)))
    assert found.n_starts == SEARCH.n_starts == sum(found.metadata["ended"].values())
    assert 0 < found.agreement < 1
    assert found.agreement == deeper.n_starts / SEARCH.n_starts


def test_what_is_found_is_least_within_bounds() -> None:
    fine = np.stack(np.meshgrid(np.linspace(-4, 0, 81), np.geomspace(0.1, 1, 41)), axis=-1).reshape(-1, 2)
    found = SEARCH.optimize(wells(), bounds=[(-4, 0), (0.1, 1)])
    assert -4 <= found.x[0] <= 0
    assert 0.1 <= found.x[1] <= 1
    assert found.fun <= wells().predict(fine).min() + 1e-9
    assert found.x[1] == pytest.approx(1.0)


def test_a_seed_fixes_every_bit_and_another_screens_other_points() -> None:
    one, again = (SEARCH.optimize(wells(), goal="exploring", seed=7) for _ in range(2))
    assert one.x.tobytes() == again.x.tobytes()
    aim = Aim(wells(), "mean", [Weights(0.0, 0.0, 0.0)])
    rows = np.empty((0, 2))
    (_, screened), (_, same), (_, other) = (SEARCH.search(aim, rows, seed) for seed in (7, 7, 8))
    assert screened.tobytes() == same.tobytes() != other.tobytes()


def test_goals_are_searched_side_by_side_as_each_alone() -> None:
    goals = [Weights(-kappa, 0.0, 0.0) for kappa in (0.0, 0.5, 2.0)]
    rows = sample("random", 4, 2, seed=9)
    together, screened = SEARCH.search(Aim(wells(), "bound", goals), rows, seed=3)
    for goal, ends, others in zip(goals, together, screened, strict=True):
        (alone,), _ = SEARCH.search(Aim(wells(), "bound", [goal]), rows, seed=3)
        assert ends.U.shape == (SEARCH.n_starts, 2)
        assert (np.diff(ends.values) >= 0).all()
        assert ends.values[0] == pytest.approx(alone.values[0], abs=1e-9)
        of = np.zeros(len(others), int)
        by_value = Aim(wells(), "bound", [goal]).values(others, of)
        assert (np.diff(by_value) >= -1e-12).all()
        assert ends.values[0] <= by_value[0]


@pytest.mark.parametrize(
    ("constraints", "best", "params"),
    [
        ((), 0.0025, {"x": 0.9, "n": 7, "kind": "r"}),
        (("x + s <= 1.2",), 0.0625, {"x": 0.7, "n": 7, "s": 0.5, "kind": "r"}),
        (("n <= 5.5", "x >= s + 0.3"), 0.2, {"x": 0.9, "n": 5, "s": 0.6, "kind": "r"}),
    ],
)
def test_a_mixed_design_is_valid_and_the_best(constraints: tuple[str, ...], best: float, params: Any) -> None:
    fitted = mixed(*constraints)
    space = fitted.space
    found = SEARCH.optimize(fitted)
    told = found.metadata["params"]
    assert isinstance(told["n"], int)
    assert told["kind"] in ("p", "q", "r")
    assert told["s"] * 10 == pytest.approx(round(told["s"] * 10))
    assert space.is_feasible(found.x)
    assert space.decode(space.encode(found.x)) == pytest.approx(found.x)
    fine = space.decode(sample("random", 4096, 4, seed=5))
    assert found.fun <= fitted.predict(fine[space.is_feasible(fine)]).min()
    for name, value in params.items():
        near = value if isinstance(value, str) else pytest.approx(value, abs=0.05)
        assert told[name] == near
    assert found.fun == pytest.approx(best, abs=0.02)


def test_each_choice_is_tried_though_it_has_no_slope() -> None:
    """From a start of the wrong kind and the wrong number, where only the continuous variable has a gradient."""
    found = LBFGSOptimizer().optimize(mixed(), [0.1, 1, 0.0, 0])
    told = found.metadata["params"]
    assert (told["n"], told["kind"]) == (7, "r")
    assert told["x"] == pytest.approx(0.9, abs=0.05)


def test_constraints_that_nothing_known_meets_are_told() -> None:
    found = SEARCH.optimize(mixed("x + s >= 3"))
    assert not found.success
    assert found.violation > 0.9
    assert f"missed by {found.violation:.3g}" in found.message


def test_a_function_as_a_constraint_is_met() -> None:
    def circle(a: float, b: float) -> float:
        return (a - 0.5) ** 2 + np.log10(b) ** 2 - 0.5

    space = SearchSpace(dict(zip(SPACE.names, SPACE.variables, strict=True)), [circle])
    X = space.decode(sample("sobol", 48, 2, seed=0))
    fitted = GPSurrogate(n_starts=2).fit(Dataset(X, two_wells(X), space))
    found = SEARCH.optimize(fitted)
    assert space.is_feasible(found.x)
    assert circle(*found.x) > -1e-3  # at the edge, beyond which the well lies
    angle = np.linspace(0, 2 * np.pi, 721)
    edge = np.column_stack([0.5 + np.sqrt(0.5) * np.cos(angle), 10 ** (np.sqrt(0.5) * np.sin(angle))])
    assert found.fun <= fitted.predict(edge).min() + DESCENT


def test_a_point_outside_is_drawn_to_the_boundary_on_its_way_in() -> None:
    space = SearchSpace({"x": Float(0, 1), "y": Float(0, 1)}, ["x + y <= 1"])
    inside, outside = np.array([[0.2, 0.2], [0.1, 0.1]]), np.array([[0.9, 0.9], [0.3, 0.3]])
    moved = drawn_into(space, outside, inside)
    assert moved[0] == pytest.approx([0.5, 0.5], abs=1e-6)
    assert moved[1].tolist() == [0.3, 0.3]
    assert space.is_feasible(moved).all()
    assert drawn_into(space, outside[:1], outside[:1]).tolist() == outside[:1].tolist()


def test_valid_points_are_on_steps_and_choices_and_stay_where_they_are() -> None:
    space = SearchSpace(MIXED)
    U = valid(space, sample("random", 64, 4, seed=0))
    assert valid(space, U).tolist() == U.tolist()
    assert space.encode(space.decode(U)) == pytest.approx(U)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"bounds": [(0, 1)]}, r"bounds: expected 2 pairs \(low, high\), got shape \(1, 2\)"),
        ({"bounds": [(-5, 1), (1, 2)]}, "bounds: expected -4 <= low <= high <= 4 of a, got -5, 1"),
        ({"x0": [1.0]}, r"x0: expected finite points of shape \(2,\) or \(k, 2\), got \[1.0\]"),
        ({"x0": [np.nan, 1]}, "x0: expected finite points"),
        ({"x0": ["a", 1]}, r"x0: expected numbers, got \['a', 1\]"),
        ({"bounds": "wide"}, "bounds: expected numbers, got 'wide'"),
        ({"seed": 0.5}, "seed: expected an integer >= 0, got 0.5"),
        ({"goal": "least"}, "goal: expected one of mean"),
    ],
)
def test_what_does_not_fit_is_told(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SEARCH.optimize(wells(), **how)


def test_bounds_between_the_steps_of_a_variable_are_told() -> None:
    with pytest.raises(ValueError, match=r"bounds: expected values of n, got 1\.5 and 4"):
        SEARCH.optimize(mixed(), bounds=[(0, 1), (1.5, 4), (0, 1), (0, 2)])


def test_bounds_hold_in_mixed_spaces() -> None:
    found = SEARCH.optimize(mixed(), bounds=[(0, 0.5), (1, 4), (0, 0.3), (0, 1)])
    assert found.metadata["params"] | {"kind": ""} == {
        "x": pytest.approx(0.5),
        "n": 4,
        "s": pytest.approx(0.3),
        "kind": "",
    }
    assert found.metadata["params"]["kind"] in ("p", "q")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_starts": 0}, "n_starts: expected an integer >= 1, got 0"),
        ({"n_starts": 8, "n_screened": 4}, "n_screened: .*n_starts = 8, got 4"),
    ],
)
def test_a_value_out_of_range_is_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiStartOptimizer(**arguments)


@pytest.mark.parametrize(
    ("points", "others", "expected"),
    [
        ([[0.0, 0.0], [1.0, 1.0]], [], [True, True]),
        ([[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.05]], [False, True]),
        ([[0.0, 0.0], [1.0, 1.0]], [[0.3, 0.4]], [True, True]),
        ([[0.0, 0.0], [0.5, 0.5]], [[0.0, 0.05], [0.5, 0.5]], [False, False]),
        ([[0.0, 0.0]], [[0.0, 0.125]], [True]),
        ([], [[0.0, 0.0]], []),
    ],
)
def test_points_are_told_apart_by_their_distance(points: Any, others: Any, expected: list[bool]) -> None:
    found = distinct(np.reshape(points, (-1, 2)), np.reshape(others, (-1, 2)), 0.1)
    assert found.dtype == bool
    assert found.tolist() == expected


def test_searching_switches_nothing_on() -> None:
    SEARCH.optimize(wells())
    assert not jax.config.jax_enable_x64


class Parabola:
    """A surrogate that JAX cannot trace, with a second well; raises left of -3.5."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        if (X[:, 0] < -3.5).any():
            raise ArithmeticError("too far to the left")
        return np.asarray(np.minimum((X[:, 0] - 1) ** 2, (X[:, 0] + 2) ** 2 + 0.5) + (X[:, 1] - 0.3) ** 2)


class WithGradient(Parabola):
    def gradient(self, X: np.ndarray) -> np.ndarray:
        nearer = (X[:, 0] - 1) ** 2 < (X[:, 0] + 2) ** 2 + 0.5
        return np.column_stack([2 * np.where(nearer, X[:, 0] - 1, X[:, 0] + 2), 2 * (X[:, 1] - 0.3)])


BOUNDS = [(-4, 4), (0, 1)]


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_surrogate_that_cannot_be_traced_is_followed_from_many_starts(executor: Any) -> None:
    made = {
        surrogate.__name__: MultiStartOptimizer(n_starts=12).optimize(
            surrogate(), bounds=BOUNDS, executor=ExecutorSpec(executor, 2)
        )
        for surrogate in (Parabola, WithGradient)
    }
    for found in made.values():
        assert found.x == pytest.approx([1, 0.3], abs=1e-3)
        assert found.fun == pytest.approx(0, abs=1e-6)
        assert found.success
        assert found.metadata["ended"]["failed"] >= 1
        assert sum(found.metadata["ended"].values()) == 12
        assert found.optima[1].x == pytest.approx([-2, 0.3], abs=1e-2)
        assert np.isnan(found.optima[0].uncertainty)
    assert made["WithGradient"].nfev < made["Parabola"].nfev


def test_what_cannot_be_followed_at_all_is_told() -> None:
    serial = ExecutorSpec("serial")
    with pytest.raises(ValueError, match="surrogate: expected one that can be followed, got ArithmeticError: too far"):
        SEARCH.optimize(Parabola(), bounds=[(-9, -8), (0, 1)], executor=serial)
    with pytest.raises(ValueError, match="goal: expected one of mean, cautious, exploring of a surrogate that"):
        SEARCH.optimize(Parabola(), bounds=BOUNDS, goal="expected_improvement", executor=serial)
    with pytest.raises(ValueError, match=r"bounds: expected .* as the surrogate has no space, got none"):
        SEARCH.optimize(Parabola())
    with pytest.raises(ValueError, match="x0: expected a point to start from"):
        LBFGSOptimizer().optimize(Parabola(), bounds=BOUNDS)


def test_an_optimizer_is_made_by_its_kind() -> None:
    assert make_optimizer("lbfgs", {"n_pairs": 5}) == LBFGSOptimizer(n_pairs=5)
    assert make_optimizer("gradient_descent") == GradientDescentOptimizer()
    made = make_optimizer("multi_start", {"n_starts": 4, "optimizer": {"kind": "trust_region", "patience": 9}})
    assert made == MultiStartOptimizer(n_starts=4, optimizer=TrustRegionOptimizer(patience=9))
    assert make_optimizer("multi_start", {"optimizer": "gradient_descent"}).optimizer == GradientDescentOptimizer()  # type: ignore[attr-defined]


class Guess:
    """A user's own optimizer: the best of a few random points."""

    def __init__(self, n: int = 10):
        self.n = n

    def optimize(self, surrogate: Any, x0: Any = None, bounds: Any = None, **how: Any) -> OptimizeResult:
        low, high = np.array(bounds, dtype=float).T
        X = low + np.random.default_rng(0).random((self.n, len(low))) * (high - low)
        y = surrogate.predict(X)
        return OptimizeResult(x=X[np.argmin(y)], fun=y.min(), success=True)


def test_a_users_own_optimizer_plugs_in_by_its_name() -> None:
    made = make_optimizer("test_optimize:Guess", {"n": 200})
    found = made.optimize(wells(), bounds=SPACE.bounds)
    assert found.fun <= wells().predict(SPACE.decode(sample("random", 64, 2, 0))).min() + 0.5


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("newton", {}, "optimizer_type: expected one of gradient_descent, lbfgs, .*package.module:Class, got 'newton'"),
        ("lbfgs", {"rate": 1}, "optimizer_params: expected some of max_iterations, .*, got 'rate'"),
        ("lbfgs", {"n_pairs": 0}, "n_pairs: expected an integer >= 1, got 0"),
        ("multi_start", {"optimizer": "newton"}, "optimizer: expected one of .*, got 'newton'"),
        ("test_optimize:Guess", {"m": 1}, "optimizer_params: expected what test_optimize:Guess takes, got .'m': 1."),
        ("test_optimize:Parabola", {}, "optimizer_type: expected an object with a method optimize, got 'test_opt"),
        ("test_optimize:Nothing", {}, "expected an importable function, got 'test_optimize:Nothing'"),
    ],
)
def test_an_optimizer_that_cannot_be_made_is_told(kind: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_optimizer(kind, params)


def test_a_walk_over_steps_goes_as_far_as_it_must() -> None:
    class Steps:
        space = SearchSpace({"n": Integer(0, 60), "k": Categorical(["p", "q"])})

        def predict(self, X: np.ndarray) -> np.ndarray:
            return np.asarray((X[:, 0] - 7) ** 2 + X[:, 1])

    found = LBFGSOptimizer().optimize(Steps(), [60, 1])
    assert found.x.tolist() == [7, 0]
    many = MultiStartOptimizer(n_starts=3).optimize(Steps(), executor=ExecutorSpec("serial"))
    assert many.x.tolist() == [7, 0]
    assert many.n_starts == 3


def test_the_bounds_of_a_space_are_bounds() -> None:
    space = SearchSpace({"a": Integer(0, 10, step=3), "b": Float(0, 1, step=0.3), "c": Float(0, 1)})
    X = space.decode(sample("sobol", 24, 3, 0))
    fitted = GPSurrogate(n_starts=1).fit(Dataset(X, X.sum(axis=1), space))
    assert SEARCH.optimize(fitted, bounds=space.bounds).x == pytest.approx([0, 0, 0])


def test_a_start_that_meets_the_constraints_is_one_to_return_to() -> None:
    space = SearchSpace({"a": Float(0, 1), "b": Float(0, 1)}, ["a - b <= 0.01", "b - a <= 0.01"])
    X = sample("random", 24, 2, 0)
    fitted = GPSurrogate(n_starts=1).fit(Dataset(X, (X[:, 0] - 0.9) ** 2 + X[:, 1], space))
    found = LBFGSOptimizer().optimize(fitted, [0.92, 0.92], [(0.9, 0.95), (0, 1)])
    assert found.violation == 0
    assert space.is_feasible(found.x)


class Tiny(Parabola):
    """The same a millionth as high: what ends a start must not be of the values' own size."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        return 1e-7 * super().predict(X)


@pytest.mark.parametrize("surrogate", [Parabola(), Tiny()], ids=["plain", "tiny"])
def test_the_size_of_the_values_does_not_end_an_untraced_start(surrogate: Any) -> None:
    found = LBFGSOptimizer().optimize(surrogate, [0.0, 0.9], bounds=BOUNDS)
    assert found.x == pytest.approx([1, 0.3], abs=1e-3)
    assert found.trajectory.x.shape == (found.nfev, 2)
    assert found.trajectory.x[0].tolist() == [0.0, 0.9]


def test_patience_ends_an_untraced_start() -> None:
    eager = LBFGSOptimizer(patience=1, min_improvement=10.0)
    found = eager.optimize(Parabola(), [0.0, 0.9], bounds=BOUNDS)
    assert found.status.name == "NO_IMPROVEMENT"
    assert found.nit <= 2


def test_continuous_variables_are_followed_again_beside_an_untraced_surrogates_steps(capsys: Any) -> None:
    class Stepped:
        """Least at x = n / 10 with n = 7: another n needs another x."""

        space = SearchSpace({"x": Float(0, 1), "n": Integer(0, 9)})

        def predict(self, X: np.ndarray) -> np.ndarray:
            return np.asarray((X[:, 0] - X[:, 1] / 10) ** 2 * 100 + (X[:, 1] - 7) ** 2)

    found = LBFGSOptimizer().optimize(Stepped(), [0.2, 2], executor=ExecutorSpec("serial"))
    assert found.x == pytest.approx([0.7, 7], abs=1e-4)
    assert capsys.readouterr() == ("", "")
    fixed = LBFGSOptimizer().optimize(Stepped(), [0.5, 2], bounds=[(0.5, 0.5), (2, 2)])
    assert fixed.x.tolist() == [0.5, 2]
    assert fixed.success


def test_the_points_given_are_starts_of_many() -> None:
    x0 = np.array([[-3.9, 9.0], [3.9, 9.9]])  # where nobody would start
    found = MultiStartOptimizer(n_starts=4).optimize(wells(), x0)
    assert found.paths is not None
    first = SPACE.decode(np.asarray(found.paths.points)[:, 0])
    for x in x0:
        assert np.abs(first - x).sum(axis=1).min() < 1e-6
    for n, expected in ((24, 32), (40, 40)):
        many = MultiStartOptimizer(n_starts=32).optimize(wells(), SPACE.decode(sample("random", n, 2, seed=1)))
        assert many.n_starts == expected


def test_starts_within_narrower_bounds_meet_the_constraints() -> None:
    space = SearchSpace({"x": Float(0, 1), "y": Float(0, 1)}, ["x + y <= 0.5"])
    U = feasible_sample(space, "sobol", 64, seed=0, box=np.array([[0.2, 0.4], [0.0, 1.0]]))
    assert len(U) == 64
    assert space.is_feasible(U).all()
    assert U[:, 0].min() >= 0.2
    assert U[:, 0].max() <= 0.4


def test_starts_are_chosen_alike_whether_all_distances_are_known_at_once_or_not(monkeypatch: Any) -> None:
    points = sample("sobol", 100, 3, seed=0)
    order = np.random.default_rng(0).permutation(100)
    one = MultiStartOptimizer(n_starts=20)._chosen(points, order)
    monkeypatch.setattr("surrogate_core.optimizers.multi_start.CHUNK", 7)
    assert MultiStartOptimizer(n_starts=20)._chosen(points, order).tolist() == one.tolist()
    assert one[:10].tolist() == order[:10].tolist()


def test_choices_that_differ_are_distinct_optima() -> None:
    space = SearchSpace({"x": Float(0, 1), "kind": Categorical(list(range(60)))})  # their places are 1/60 apart
    X = space.decode(sample("sobol", 64, 2, seed=0))
    fitted = GPSurrogate(n_starts=1).fit(Dataset(X, (X[:, 0] - 0.5) ** 2, space))
    found = SEARCH.optimize(fitted)
    kinds = [one.x[1] for one in found.optima]
    assert len(kinds) == len(set(kinds)) > 1
