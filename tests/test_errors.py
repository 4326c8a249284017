"""What errors at held-out rows tell of a surrogate's uncertainty."""

import numpy as np
import pytest

from surrogate_core import Dataset, HybridSurrogate, NeuralSurrogate, RandomForestSurrogate, SearchSpace
from surrogate_core.surrogates.base import Surrogate
from surrogate_core.surrogates.errors import learned_errors, variance


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.5])
def test_weights_and_noise_under_which_errors_were_drawn_are_found(noise: float) -> None:
    rng = np.random.default_rng(0)
    S = rng.gamma(1.0, 0.1, (4000, 2))
    c = np.array([2.0, 0.5])
    r = np.sqrt(variance(S, c) + noise) * rng.standard_normal(4000)
    found, e = learned_errors(r, S, np.ones(4000), np.array([1.0, 1.0]))
    assert e == pytest.approx(noise, rel=0.5)
    assert variance(S, found) + e == pytest.approx(variance(S, c) + noise, rel=0.3)


def test_of_few_rows_the_prior_tells() -> None:
    c, e = learned_errors(np.zeros(0), np.zeros((0, 2)), np.ones(0), np.array([1.0, 0.3]))
    assert [*c, e] == pytest.approx([1.0, 0.3, 1e-3], rel=0.01)


@pytest.mark.parametrize(
    "spec",
    [
        NeuralSurrogate(n_epochs=150),
        RandomForestSurrogate(),
        HybridSurrogate(members=["gaussian_process", "random_forest"]),
    ],
    ids=str,
)
def test_noise_is_told_apart_from_what_is_not_known(spec: Surrogate) -> None:
    def wavy(X: np.ndarray) -> np.ndarray:
        return np.sin(6 * X[:, 0]) + X[:, 1] ** 2

    found = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = rng.random((100, 2))
        noisy, exact = (
            spec.fit(Dataset(X, wavy(X) + noise * rng.standard_normal(100), SearchSpace.from_bounds([(0, 1)] * 2)))
            for noise in (0.5, 0.0)
        )
        told, none = (float(np.sqrt(one.state.noise) * one.state.output.scale) for one in (noisy, exact))
        found += 0.25 <= told <= 1.0 and none < 0.25
    assert found >= 2
