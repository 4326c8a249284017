"""Data that break a Gaussian process end in a fit that is of use, and what was done is told."""

import numpy as np
import pytest

from benchmarks.degenerate import CASES, outcome, wavy
from surrogate_core import Dataset, GPSurrogate, SearchSpace
from surrogate_core.sampling import sample
from surrogate_core.surrogates.likelihood import factorize
from surrogate_core.surrogates.training import training

SPEC = GPSurrogate(n_starts=3)
LEARNABLE = [
    case for case in CASES if case not in ("one row", "two rows", "6 rows, 10 variables") and "noise" not in case
]
TOLD = {
    "plain": None,
    "every row twice": "15 repeated rows merged",
    "constant output": "all values are equal",
    "constant up to rounding": "all values are equal",
    "an outlier of 1e6": "1 outlier drawn in to the range of the other values, and doubted",
}


@pytest.mark.parametrize("case", LEARNABLE)
def test_what_can_be_learned_is_learned_and_intervals_hold(case: str) -> None:
    told = outcome(case, SPEC, n_seeds=2)
    constant = case.startswith("constant")
    assert told.error_ratio <= (1.0 if constant else 0.5)
    assert told.coverage_95 >= 0.7


@pytest.mark.parametrize("case", ["one row", "two rows", "6 rows, 10 variables", "12 rows, noise as large"])
def test_too_little_to_learn_from_is_not_much_worse_than_the_mean(case: str) -> None:
    told = outcome(case, SPEC, n_seeds=4)
    assert told.error_ratio <= 2.0
    assert told.coverage_95 >= 0.4


@pytest.mark.parametrize("case", TOLD)
def test_what_was_done_is_told(case: str) -> None:
    told = outcome(case, SPEC, n_seeds=4).fallbacks
    if TOLD[case] is None:
        assert not told
    else:
        assert told[TOLD[case]] >= 1


def test_a_covariance_that_cannot_be_factored_gets_a_jitter() -> None:
    U = sample("sobol", 40, 2, seed=1)
    rows = training(Dataset(U, wavy(U), SearchSpace.from_bounds([(0, 1)] * 2)), "standardize")
    singular, regular = (factorize("rbf", np.log([l, l, s2, 1e-8]), rows) for l, s2 in ((10.0, 1e9), (0.3, 1.0)))
    assert regular.jitter == 0 < singular.jitter
    assert np.isfinite(singular.a).all()
    with pytest.raises(ValueError, match="expected a covariance that can be factored, got none with a jitter"):
        factorize("rbf", np.array([0.0, 0.0, np.nan, 0.0]), rows)


def test_where_no_likelihood_can_be_computed_the_prior_decides_and_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(theta), -np.inf), np.zeros_like(theta)

    monkeypatch.setattr("surrogate_core.surrogates.hyperparameters._likelihoods", lambda kernel, rows: never)
    U = sample("sobol", 20, 2, seed=1)
    fitted = SPEC.fit(Dataset(U, wavy(U), SearchSpace.from_bounds([(0, 1)] * 2)))
    assert fitted.diagnostics["fallbacks"] == ["no hyperparameters could be learned"]
    assert fitted.diagnostics["negative_log_posterior"] is None
    assert np.corrcoef(fitted.predict(U), wavy(U))[0, 1] > 0.9
