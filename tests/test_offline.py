"""A design from data alone: it goes as far as the data bears, keeps its promise, and else stays with the best row."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from surrogate_core import Dataset, GPSurrogate, MultiStartOptimizer, SearchSpace
from surrogate_core.offline import FEWEST, STRENGTHS, UNKNOWN, Recommendation, learned_strength, recommend
from surrogate_core.sampling import sample

SPACE = SearchSpace.from_bounds([(-2, 2)] * 2)
SPEC = GPSurrogate(n_starts=2)
SEARCH = MultiStartOptimizer(n_starts=8, n_screened=128)


def bowl(X: np.ndarray) -> np.ndarray:
    return np.asarray(((X - 0.6) ** 2).sum(axis=1))


def noisy(X: np.ndarray) -> np.ndarray:
    return bowl(X) + 2 * noise(X)


def noise(X: np.ndarray) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(len(X))


FUNCTIONS = {function.__name__: function for function in (bowl, noisy, noise)}


def worse_part(name: str, seed: int = 0, n: int = 60) -> Dataset:
    X = SPACE.decode(sample("random", 2 * n, 2, seed))
    y = FUNCTIONS[name](X)
    worse = np.argsort(-y)[: int(1.2 * n)]
    rows = np.sort(np.random.default_rng(seed).permutation(worse)[:n])
    return Dataset(X[rows], y[rows], SPACE)


@cache
def advice(name: str, seed: int = 0) -> Recommendation:
    return recommend(SPEC, worse_part(name, seed), SEARCH, seed=seed)


def test_on_a_smooth_function_it_goes_beyond_the_data_and_keeps_its_promise() -> None:
    held = 0
    for seed in range(4):
        found, best = advice("bowl", seed), worse_part("bowl", seed).y.min()
        value = bowl(found.x[None])[0]
        assert not found.stays
        assert found.trust.verdict == "supported"
        assert value < 0.1 * best
        assert found.strength.kappa <= 0.5
        assert found.lower <= found.promised <= found.upper
        held += found.lower <= value <= found.upper
    assert held >= 3


def test_where_nothing_can_be_learned_the_best_row_stays() -> None:
    for seed in range(3):
        data, found = worse_part("noise", seed), advice("noise", seed)
        assert found.stays
        assert found.x.tolist() == data.X[data.best_index].tolist()
        assert found.promised == found.lower == found.upper == data.y.min()
        assert found.trust.verdict == "unsupported"


def test_a_noisy_function_is_not_followed_as_far_as_a_smooth_one() -> None:
    kappas = {name: np.mean([advice(name, seed).strength.kappa for seed in range(3)]) for name in ("bowl", "noisy")}
    assert kappas["noisy"] > kappas["bowl"]


def test_the_strength_is_the_one_of_the_least_score() -> None:
    found = advice("bowl").strength
    assert found.scores.shape == (len(STRENGTHS),)
    assert found.kappa == STRENGTHS[int(np.argmin(found.scores))]


def test_what_is_promised_allows_for_the_disappointment() -> None:
    found = advice("bowl")
    lower, upper = found.fitted.interval(found.found.x)
    assert found.trust.promise is not None
    assert (found.trust.promise.lower, found.trust.promise.upper) == (lower, upper)
    assert found.lower < lower
    assert found.upper > upper
    assert found.promised >= found.found.fun
    assert found.trust.r2 is not None
    assert found.trust.r2 > 0.9


def test_a_strength_can_be_given_and_the_needed_confidence_too() -> None:
    data = worse_part("bowl")
    near = recommend(SPEC, data, SEARCH, kappa=5.0)
    assert near.strength.kappa == 5.0
    assert len(near.strength.scores) == 0
    assert near.fitted.extrapolation(near.found.x) <= advice("bowl").fitted.extrapolation(advice("bowl").found.x)
    assert recommend(SPEC, worse_part("noise"), SEARCH, confidence=0.0).stays is False


def test_too_few_rows_to_hold_any_out_leave_the_strength_as_it_is_by_default() -> None:
    data = worse_part("bowl").take(range(FEWEST))
    found = learned_strength(SPEC.fit(data), data, SEARCH, seed=0)
    assert found.kappa == UNKNOWN
    assert len(found.scores) == 0
    assert np.isfinite(recommend(SPEC, data, SEARCH).promised)


def test_a_seed_fixes_every_bit() -> None:
    again = recommend(SPEC, worse_part("bowl"), SEARCH, seed=0)
    assert again.x.tobytes() == advice("bowl").x.tobytes()
    assert again.strength.scores.tobytes() == advice("bowl").strength.scores.tobytes()


def test_constraints_that_nothing_meets_leave_the_best_row() -> None:
    data = worse_part("bowl")
    narrow = SearchSpace(dict(zip(SPACE.names, SPACE.variables, strict=True)), ["x1 + x2 >= 9"])
    assert recommend(SPEC, Dataset(data.X, data.y, narrow), SEARCH).stays


def test_a_confidence_out_of_range_is_told() -> None:
    with pytest.raises(ValueError, match=r"confidence: expected a number in \[0, 1\], got 1.5"):
        recommend(SPEC, worse_part("bowl"), confidence=1.5)
