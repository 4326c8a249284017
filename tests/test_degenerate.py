"""Data that break a Gaussian process end in a fit that is of use, and what was done is told."""

import numpy as np
import pytest
from textbook import covariance

from benchmarks.degenerate import CASES, outcome, wavy
from surrogate_core import Dataset, GPSurrogate, SearchSpace
from surrogate_core.sampling import sample
from surrogate_core.surrogates.hyperparameters import BOUNDS
from surrogate_core.surrogates.likelihood import factorize, inverse_factor
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
    for least, expected in ((1e-3, 0.0), (-1e-11, 1e-10), (-1e-7, 1e-6)):
        K = np.diag([1.0, 2.0, least])
        inverse, jitter = inverse_factor(K, 1.0)
        assert jitter == expected
        assert inverse @ (K + jitter * np.eye(3)) @ inverse.T == pytest.approx(np.eye(3))
    with pytest.raises(ValueError, match="expected a covariance that can be factored, got none with a jitter"):
        inverse_factor(np.diag([1.0, -1.0]), 1.0)


@pytest.mark.parametrize("kernel", ["matern52", "rbf"])
@pytest.mark.parametrize("l", [1.0, 20.0])
def test_where_the_noise_is_least_and_the_scale_largest_predictions_are_not_lost_in_rounding(
    kernel: str, l: float
) -> None:
    U = sample("sobol", 300, 2, seed=1)
    rows = training(Dataset(U, wavy(U), SearchSpace.from_bounds([(0, 1)] * 2)), "standardize")
    theta = np.log([l, l, BOUNDS[1][1], BOUNDS[2][0]])
    factors = factorize(kernel, theta, rows)
    assert factors.jitter == 0
    K = covariance(kernel, theta, rows.U) + BOUNDS[2][0] * np.eye(300)
    assert np.abs(K @ factors.a - rows.z).max() < 1e-2
    assert np.abs(factors.L_inverse @ K @ factors.L_inverse.T - np.eye(300)).max() < 1e-2


def test_where_no_likelihood_can_be_computed_the_prior_decides_and_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(theta), -np.inf), np.zeros_like(theta)

    monkeypatch.setattr("surrogate_core.surrogates.hyperparameters._likelihoods", lambda kernel, rows: never)
    U = sample("sobol", 20, 2, seed=1)
    fitted = SPEC.fit(Dataset(U, wavy(U), SearchSpace.from_bounds([(0, 1)] * 2)))
    assert fitted.diagnostics["fallbacks"] == ["no hyperparameters could be learned"]
    assert fitted.diagnostics["negative_log_posterior"] is None
    assert np.corrcoef(fitted.predict(U), wavy(U))[0, 1] > 0.9
