"""How far a design can be believed: the disappointment that is learned, what is corrected by it, and the verdict."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from surrogate_core import (
    Dataset,
    Float,
    GPSurrogate,
    Integer,
    LBFGSOptimizer,
    MultiStartOptimizer,
    SearchSpace,
    SurrogateOptimizer,
    TrustRegionOptimizer,
    quick_optimize,
)
from surrogate_core.acquisition import Goal
from surrogate_core.sampling import sample
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.trust import LARGEST, Promise, assess, assess_measured, disappointment, shape_at

SPACE = SearchSpace.from_bounds([(-2, 2)] * 2)
SPEC = GPSurrogate(n_starts=2)
SEARCH = MultiStartOptimizer(n_starts=8, n_screened=128)


def bowl(X: np.ndarray) -> np.ndarray:
    """Curvatures 2 and 8 about (0.6, -0.4)."""
    return np.asarray((X[..., 0] - 0.6) ** 2 + 4 * (X[..., 1] + 0.4) ** 2)


@cache
def dataset(n: int = 40, noise: float = 0.0) -> Dataset:
    X = SPACE.decode(sample("sobol", n, 2, seed=3))
    return Dataset(X, bowl(X) + noise * np.random.default_rng(1).standard_normal(n), SPACE)


@cache
def fitted(n: int = 40, noise: float = 0.0) -> FittedSurrogate:
    return SPEC.fit(dataset(n, noise))


@cache
def nothing_learned() -> FittedSurrogate:
    X = SPACE.decode(sample("sobol", 40, 2, seed=3))
    return SPEC.fit(Dataset(X, np.random.default_rng(0).standard_normal(40), SPACE))


errors_ = arrays(float, st.integers(0, 30), elements=st.floats(-6, 6, allow_subnormal=False))


@given(errors=errors_, r2=st.floats(-1, 1, allow_subnormal=False))
def test_disappointment_is_the_posterior_of_the_normal_model(errors: np.ndarray, r2: float) -> None:
    known, e = disappointment(r2, errors.tolist()), np.clip(errors, -LARGEST, LARGEST)
    unknown, n = 1 - max(r2, 0), len(e)  # Gelman et al. (2013), eqs. 3.3 to 3.9, one row after the other
    mean, weight, freedom, squares = unknown, 4.0, 8.0, 8 * (1 + unknown / 2) ** 2
    for one in e:
        squares += weight / (weight + 1) * (one - mean) ** 2
        mean = (weight * mean + one) / (weight + 1)
        weight, freedom = weight + 1, freedom + 1
    assert known.freedom == freedom == 8 + n
    assert known.center == pytest.approx(max(mean, 0), abs=1e-9)
    assert known.scale == pytest.approx(max(np.sqrt(squares / freedom * (1 + 1 / weight)), 1), rel=1e-9)


def test_a_surrogate_that_knows_more_disappoints_less_and_so_does_a_cautious_search() -> None:
    centers = [disappointment(r2).center for r2 in (None, 0.0, 0.5, 0.9, 1.0)]
    assert centers == sorted(centers, reverse=True)
    assert centers[0] == centers[1] == 1
    assert centers[-1] == 0
    assert disappointment(0.0, kappa=np.array([-1.0, 0.0, 0.5, 3.0])).center.tolist() == [1, 1, 0.5, 0]


def test_promises_that_were_broken_lower_the_next_and_those_that_were_kept_raise_it() -> None:
    expected = fitted().predictive(np.array([0.5, -0.3]))
    broken, fresh, kept = (Promise.of(expected, disappointment(0.5, e)) for e in ([3.0] * 8, [], [0.0] * 8))
    assert broken.corrected > fresh.corrected > kept.corrected >= kept.predicted
    assert broken.corrected_upper > fresh.corrected_upper > kept.corrected_upper
    for told in (broken, fresh, kept):
        assert told.lower < told.predicted < told.upper < told.corrected_upper
        assert told.corrected_upper - told.corrected_lower > told.upper - told.lower


@given(shift=st.floats(-3, 3, allow_subnormal=False))
def test_what_is_maximized_is_told_in_its_own_direction(shift: float) -> None:
    expected, known = fitted().predictive(np.array([shift / 2, 0.1])), disappointment(0.5)
    up, down = Promise.of(expected, known, -1.0), Promise.of(expected, known)
    assert (up.predicted, up.lower, up.upper) == (-down.predicted, -down.upper, -down.lower)
    swapped = (-down.corrected, -down.corrected_upper, -down.corrected_lower)
    assert (up.corrected, up.corrected_lower, up.corrected_upper) == pytest.approx(swapped)
    assert up.corrected < up.predicted


def test_verdicts_say_yes_and_no_before_anything_is_measured() -> None:
    good = SEARCH.optimize(fitted()).trust_given(r2=0.99, best=float(dataset().y.min()))
    assert good.verdict == "supported"
    assert good.probability is not None
    assert good.probability >= 0.9
    found = SEARCH.optimize(nothing_learned())
    bad = found.trust_given(r2=0.0)
    assert bad.verdict == "unsupported"
    assert "the surrogate explains 0 % of held-out values" in bad.why
    verdicts = [found.trust_given(r2=0.0, best=found.fun + s).verdict for s in np.linspace(0, 8, 33)]
    assert verdicts[0] == "unsupported"
    assert verdicts[-1] == "supported"
    assert "doubtful" in verdicts
    order = [("unsupported", "doubtful", "supported").index(verdict) for verdict in verdicts]
    assert order == sorted(order)  # the more is promised of it, the better


def test_a_result_carries_a_report_that_ends_in_a_sentence() -> None:
    found = SEARCH.optimize(fitted())
    told = found.trust
    assert str(told) == f"{told.verdict}: {told.why}"
    assert told.promise is not None
    assert told.promise.predicted == pytest.approx(found.fun, abs=1e-8)
    assert told.agreement == found.agreement
    assert told.extrapolation == pytest.approx(float(fitted().extrapolation(found.x)))
    assert told.gradient_norm is not None
    assert told.gradient_norm < 1e-3
    assert told.hessian_condition == pytest.approx(4, rel=0.1)
    assert told.measured is None
    plain = orjson.loads(orjson.dumps(told.to_dict()))
    assert plain["verdict"] == told.verdict
    assert plain["corrected_upper"] == told.promise.corrected_upper
    assert LBFGSOptimizer().optimize(fitted()).trust.agreement is None  # of one start


def test_who_searches_cautiously_is_told_of_less_disappointment() -> None:
    mean, cautious = (SEARCH.optimize(fitted(), goal=goal).trust for goal in ("mean", "cautious"))
    assert mean.disappointment == 1
    assert cautious.disappointment == 0
    assert SEARCH.optimize(fitted(), goal=Goal("conservative", 0.5)).trust.disappointment == 0.5
    assert SEARCH.optimize(fitted(), goal="exploring").trust.disappointment == 1


def test_a_design_that_breaks_constraints_is_unsupported() -> None:
    narrow = SearchSpace(dict(zip(SPACE.names, SPACE.variables, strict=True)), ["x1 + x2 >= 9"])
    told = SEARCH.optimize(SPEC.fit(Dataset(dataset().X, dataset().y, narrow))).trust
    assert told.verdict == "unsupported"
    assert told.why.startswith("known constraints are missed by ")


@pytest.mark.parametrize(
    ("x", "slope", "condition"),
    [
        ([0.6, -0.4], 0.0, 4.0),
        ([0.0, -0.4], 1.2 * 4, 4.0),
        ([-2.0, -0.4], 5.2 * 4, None),  # downhill is inwards: it counts, and the curvature is of the other variable
    ],
)
def test_the_shape_there_is_that_of_the_function(x: list[float], slope: float, condition: float | None) -> None:
    of_y = float(dataset().y.std())  # the units of the standardized prediction; 4 is the range of a variable
    norm, told = shape_at(fitted(80), np.array(x))
    assert norm == pytest.approx(slope / float(fitted(80).state.output.scale), abs=0.02 * slope + 0.02 / of_y)
    assert told == pytest.approx(1.0 if condition is None else condition, rel=0.1)


def test_at_a_bound_what_points_outwards_does_not_count() -> None:
    corner = np.array([[0.75, 1.0], [0.5, 1.0]])
    norm, _ = shape_at(fitted(80), SPACE.decode(np.array([0.75, 0.5])), corner)
    free, _ = shape_at(fitted(80), SPACE.decode(np.array([0.75, 0.5])))
    assert norm < free
    assert norm == pytest.approx(0, abs=1e-6)  # both slopes lead out of the bounds


def test_discrete_variables_have_no_slope_and_a_hilltop_no_condition() -> None:
    space = SearchSpace({"x": Float(-2, 2), "n": Integer(0, 4)})
    X = space.decode(sample("sobol", 32, 2, seed=0))
    hill = SPEC.fit(Dataset(X, -(X[:, 0] ** 2) + X[:, 1], space))
    _, condition = shape_at(hill, np.array([0.01, 2.0]))
    assert condition == np.inf
    told = assess(hill, np.array([0.01, 2.0]))
    assert told.hessian_condition == np.inf
    assert told.to_dict()["hessian_condition"] is None
    whole = SearchSpace({"m": Integer(0, 4), "n": Integer(0, 4)})
    points = np.array([(i, j) for i in range(5) for j in range(5)], dtype=float)
    assert shape_at(SPEC.fit(Dataset(points, points.sum(axis=1), whole)), np.array([1.0, 1.0])) == (0.0, None)


def measured(value: float, errors: list[float], noise: float = 0.0, **how: Any) -> Any:
    """Of a design of which 0.1 +- 0.2 was promised, where the best sample was 1."""
    promise = Promise(0.1, -0.1, 0.3, 0.15, -0.15, 0.4)
    given: dict[str, Any] = {"extrapolation": 0.4, "errors": errors, **how}
    return assess_measured(fitted(40, noise), np.array([0.5, -0.3]), promise, value, best=1.0, **given)


def test_verdicts_say_yes_and_no_once_it_was_measured() -> None:
    told = measured(0.2, [0.3, -1.0, 0.5, 2.5])
    assert str(told) == "supported: measured 0.2, the best sample 1; 3 of 4 promises were kept"
    assert (told.n_verified, told.n_kept, told.measured, told.probability) == (4, 3, 0.2, None)
    assert told.extrapolation == 0.4
    told = measured(0.2, [0.3, -3.0, 3.0, 2.5])
    assert str(told) == "doubtful: measured 0.2, the best sample 1: an improvement, but only 1 of 4 promises were kept"
    told = measured(0.7, [2.0, 0.1, 0.1, 0.1, 0.1])
    assert told.verdict == "doubtful"
    assert "less than was promised" in told.why
    told = measured(1.2, [4.0])
    assert str(told) == "unsupported: measured 1.2, the best sample 1: no improvement"
    told = assess_measured(fitted(), np.zeros(2), None, 1.0, best=1.0, extrapolation=None, errors=[3.0, 2.0])
    assert str(told) == "unsupported: none of 2 promised designs that were measured is better than the best sample, 1"
    assert told.promise is None
    assert told.to_dict()["corrected"] is None


def test_an_improvement_within_the_noise_is_doubtful() -> None:
    assert measured(0.2, [0.3]).verdict == "supported"
    noisy = measured(0.2, [0.3], noise=2.0)
    assert noisy.verdict == "doubtful"
    assert "within the noise of measurements" in noisy.why


def test_a_maximum_is_judged_the_other_way_round() -> None:
    promise = Promise(5.0, 4.0, 6.0, 4.5, 3.0, 6.0)
    upside_down = SPEC.fit(replace(dataset(), y=-dataset().y))

    def told(value: float) -> str:
        return assess_measured(
            upside_down, np.zeros(2), promise, value, best=2.0, extrapolation=0.1, errors=[0.0], sign=-1.0
        ).verdict

    assert [told(value) for value in (1.0, 2.5, 4.5, 9.0)] == ["unsupported", "doubtful", "supported", "supported"]
    unmeasured = assess(upside_down, np.array([0.6, -0.4]), best=-9.0, sign=-1.0)
    assert str(unmeasured) == "unsupported: a value better than the best sample, 9, is probable to 1 % or less"


def test_a_trust_region_with_the_true_function_is_judged_by_what_it_measured() -> None:
    optimizer = TrustRegionOptimizer(max_evaluations=8, refit=True)
    found = optimizer.optimize(fitted(12), true_function=lambda x: float(bowl(x)), dataset=dataset(12))
    assert found.trust.verdict == "supported"
    assert found.trust.measured == found.fun
    assert found.trust.n_verified == np.isfinite(found.trajectory.measured[1:]).sum()  # type: ignore[index]
    stuck = optimizer.optimize(fitted(12), true_function=lambda _: 1.0, dataset=dataset(12))
    assert stuck.trust.verdict == "unsupported"


class Plain:
    """Of one's own: it predicts, and no more."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        return bowl(X)


class Sure(Plain):
    def uncertainty(self, X: np.ndarray) -> np.ndarray:
        return np.full(len(X), 0.01)


def test_a_surrogate_of_ones_own_is_judged_by_what_it_tells() -> None:
    silent = assess(Plain(), np.array([0.6, -0.4]), best=1.0)
    assert str(silent) == "doubtful: it was not measured, and the surrogate tells too little of itself"
    assert silent.gradient_norm is None
    assert assess(Sure(), np.array([0.6, -0.4]), best=1.0).verdict == "supported"
    assert assess(Sure(), np.array([0.6, -0.4]), best=-1.0).verdict == "unsupported"
    assert assess(Sure(), np.array([0.6, -0.4])).verdict == "doubtful"  # nothing is known to be improved on


def test_the_facade_adds_what_cross_validation_tells() -> None:
    workflow = SurrogateOptimizer(surrogate_params={"n_starts": 2}).fit_surrogate(dataset())
    found = workflow.optimize()
    told = workflow.trust(found)
    assert told.r2 is not None
    assert told.r2 > 0.95
    assert told.disappointment == pytest.approx(1 - told.r2)
    assert found.trust.disappointment == 1
    with pytest.raises(ValueError, match="surrogate: expected one that is fitted"):
        SurrogateOptimizer().trust(found)


def test_quick_optimize_is_judged_by_what_it_measured() -> None:
    good = quick_optimize(lambda x: float(bowl(x)), [(-2, 2)] * 2, n_samples=24, surrogate_params={"n_starts": 2})
    assert good.trust.verdict == "supported"
    assert good.trust.measured == good.fun
    calls: list[np.ndarray] = []

    def worse_in_the_end(x: np.ndarray) -> float:
        calls.append(x)
        return float(bowl(x)) if len(calls) < 16 else 99.0

    bad = quick_optimize(worse_in_the_end, [(-2, 2)] * 2, n_samples=16, surrogate_params={"n_starts": 2})
    assert bad.trust.verdict == "unsupported"
    assert "none of 1 promised designs" in bad.trust.why


def test_where_nothing_could_be_measured_nothing_is_supported() -> None:
    def raises(_: np.ndarray) -> float:
        raise OSError("down")

    found = TrustRegionOptimizer(refit=False).optimize(fitted(), true_function=raises)
    assert str(found.trust) == "unsupported: nothing could be measured"
    told = assess_measured(fitted(), np.zeros(2), None, 1.0, best=1.0, extrapolation=None, errors=[])
    assert str(told) == "unsupported: no promised design gave a value; the best sample, 1, stays"
    missed = measured(0.2, [0.3], violation=0.5)
    assert str(missed) == "unsupported: known constraints are missed by 0.5"
    assert measured(0.2, []).verdict == "doubtful"


def test_a_trust_region_is_compared_with_the_best_row_not_with_where_it_began() -> None:
    optimizer = TrustRegionOptimizer(max_evaluations=2, initial_radius=0.05, refit=False)
    far = optimizer.optimize(fitted(), [-2.0, 2.0], true_function=lambda x: float(bowl(x)), dataset=dataset())
    assert far.trajectory.measured is not None
    assert far.fun < far.trajectory.measured[0]
    assert far.trust.verdict == "unsupported"
    assert far.trust.why.endswith(f"the best sample {dataset().y.min():.4g}: no improvement")


def test_bounds_hold_for_the_shape_of_a_measured_design() -> None:
    bounds = [(-2, 0), (-2, -1)]  # the least is in the corner (0, -1)
    for found in (
        SEARCH.optimize(fitted(80), bounds=bounds),
        TrustRegionOptimizer(refit=False).optimize(fitted(80), bounds=bounds, true_function=lambda x: float(bowl(x))),
    ):
        assert found.x == pytest.approx([0, -1], abs=1e-6)
        assert found.trust.gradient_norm == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_a_corner_is_a_corner_whatever_rounding_makes_of_it(seed: int) -> None:
    low = np.random.default_rng(seed).uniform(-2, 0.5, (50, 2))
    for edge in low:
        bounds = np.column_stack([edge, np.minimum(edge + 1, 2)])
        box = SPACE.encode(bounds.T).T
        x = SPACE.decode(box[:, 0])
        norm, _ = shape_at(fitted(80), x, box)
        inward = -fitted(80).gradient(x) / SPACE.slope(x) / float(fitted(80).state.output.scale)
        assert norm == pytest.approx(np.linalg.norm(np.maximum(inward, 0)), rel=1e-6, abs=1e-9)


def test_a_refit_survives_a_value_that_its_transform_rules_out() -> None:
    rows = dataset()
    log = GPSurrogate(n_starts=2, transform="log").fit(rows)
    found = TrustRegionOptimizer(max_evaluations=4).optimize(
        log, true_function=lambda x: float(bowl(x)) - 0.5, dataset=rows
    )
    assert found.nfev == 4
    assert found.fun < 0
    assert found.trust.verdict in ("doubtful", "supported")


def test_every_report_can_be_written_as_json() -> None:
    quick = quick_optimize(lambda x: float(bowl(x)), [(-2, 2)] * 2, n_samples=12, surrogate_params={"n_starts": 2})
    region = TrustRegionOptimizer(refit=False).optimize(fitted(), true_function=lambda x: float(bowl(x)))
    for found in (quick, region, SEARCH.optimize(fitted())):
        assert orjson.loads(orjson.dumps(found.trust.to_dict()))["verdict"] == found.trust.verdict
        assert found.trust_given(best=-99.0).verdict == "unsupported"  # what is known can be said of each
    assert quick.trust.agreement == quick.agreement > 0


def test_a_surrogate_of_ones_own_in_quick_optimize_is_judged_by_its_measurement() -> None:
    class Mean:
        def fit(self, data: Dataset) -> None:
            self.level = float(data.ok.y.mean())

        def predict(self, X: np.ndarray) -> np.ndarray:
            return self.level + 0 * X[:, 0]

    workflow = SurrogateOptimizer()
    workflow.surrogate = Mean()
    found = workflow.fit_surrogate(dataset()).optimize([0.1, 0.1])
    with pytest.raises(ValueError, match="found: expected the result of an optimizer of this library"):
        workflow.trust(object())  # type: ignore[arg-type]
    assert workflow.trust(found).verdict == "doubtful"


def test_few_rows_and_a_surrogate_put_in_its_place_are_no_obstacle() -> None:
    workflow = SurrogateOptimizer(surrogate_params={"n_starts": 2}).fit_surrogate(dataset().take(range(3)))
    assert workflow.trust(workflow.optimize()).r2 is not None
    other = SurrogateOptimizer()
    other.surrogate = fitted()
    assert other.trust(other.optimize()).r2 is None


@settings(max_examples=10)
@given(seed=st.integers(0, 5))
def test_a_report_is_the_same_each_time(seed: int) -> None:
    one, other = (SEARCH.optimize(fitted(), seed=seed).trust for _ in range(2))
    assert one == other
