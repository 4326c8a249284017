"""The deep ensemble: its network, how it is trained, and what its options do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from tolerances import ROUNDING

from surrogate_core import Dataset, NeuralSurrogate, SearchSpace
from surrogate_core.parallel import in_threads
from surrogate_core.sampling import sample
from surrogate_core.surrogates.files import surrogate_files
from surrogate_core.surrogates.network import Design, _kept, initial_weights, layers, value

CUBE = SearchSpace.from_bounds([(0, 1)] * 2)
SMALL: dict[str, Any] = {"hidden_layers": (16, 16), "ensemble_size": 4, "n_epochs": 150}


def wavy(U: np.ndarray) -> np.ndarray:
    return np.sin(6 * U[:, 0]) + U[:, 1] ** 2


def slopes(U: np.ndarray) -> np.ndarray:
    return np.column_stack([6 * np.cos(6 * U[:, 0]), 2 * U[:, 1]])


def rows(n: int, seed: int = 1, **more: Any) -> Dataset:
    U = sample("sobol", n, 2, seed)
    return Dataset(U, wavy(U), CUBE, **more)


def error(spec: NeuralSurrogate, data: Dataset, seed: int = 0) -> float:
    at = sample("sobol", 128, 2, seed=9)
    return float(np.sqrt(np.mean((spec.fit(data, jax.random.key(seed)).predict(at) - wavy(at)) ** 2)))


def test_a_member_is_a_multilayer_perceptron() -> None:
    sizes, rng = (5, 3), np.random.default_rng(0)
    weights = initial_weights(2, sizes, 1, rng)[0]
    x = np.array([0.3, -0.8])
    at, told = 0, x
    for a, b in layers(2, sizes):
        W, bias = weights[at : at + a * b].reshape(a, b), weights[at + a * b : at + a * b + b]
        at += a * b + b
        told = told @ W + bias
        told = told if b == 1 else told * expit(told)
    assert at == len(weights)
    with jax.enable_x64(True):
        found = value(sizes, "silu", jnp.asarray(weights), jnp.asarray(x))
    assert float(found) == pytest.approx(told[0], rel=ROUNDING)


def test_first_weights_keep_the_variance_of_what_goes_through() -> None:
    weights = initial_weights(100, (100,), 50, np.random.default_rng(0))[:, : 100 * 100]
    assert weights.var() == pytest.approx(1 / 100, rel=0.01)


def test_the_function_is_learned_and_better_from_more_rows() -> None:
    errors = np.array([[error(NeuralSurrogate(**SMALL), rows(n, seed), seed) for n in (16, 64)] for seed in range(3)])
    assert (errors[:, 1] < 0.5 * errors[:, 0]).all()
    assert (errors[:, 1] < 0.1 * wavy(sample("sobol", 128, 2, seed=9)).std()).sum() >= 2


def test_derivatives_are_matched_where_they_are_given() -> None:
    data = rows(24)
    with_them = rows(24, gradients=slopes(data.X))
    some = slopes(data.X)
    some[::2], some[:, 1] = np.nan, np.nan
    plain, all_known, few_known = (
        np.mean([error(NeuralSurrogate(**SMALL), one, seed) for seed in range(3)])
        for one in (data, with_them, rows(24, gradients=some))
    )
    assert all_known < 0.5 * plain
    assert few_known < plain
    ignored = NeuralSurrogate(**SMALL, gradient_weight=0.0).fit(with_them).predict(data.X)
    assert ignored == pytest.approx(NeuralSurrogate(**SMALL).fit(data).predict(data.X), abs=1e-6)


def test_dropout_leaves_out_its_share_and_keeps_the_mean() -> None:
    design = Design((400, 50), "silu", 0.25, 0.0, 1.0, 0.0, 32)
    with jax.enable_x64(True):
        kept = _kept(design, 100, jax.random.key(0))
        assert _kept(design, 100, None) is None
        kept = [np.asarray(layer) for layer in kept]
    assert [layer.shape for layer in kept] == [(100, 400), (100, 50)]
    assert np.mean(kept[0] == 0) == pytest.approx(0.25, abs=0.01)
    assert kept[0].mean() == pytest.approx(1.0, abs=0.01)
    with_it, without = (NeuralSurrogate(**SMALL, dropout_rate=rate).fit(rows(32)) for rate in (0.25, 0.0))
    assert not np.array_equal(with_it.state.weights, without.state.weights)
    X = sample("sobol", 16, 2, seed=3)
    assert with_it.predict(X).tolist() == with_it.predict(X).tolist()  # a prediction drops nothing


def test_training_ends_early_and_keeps_the_best_weights() -> None:
    spec = NeuralSurrogate(**{**SMALL, "n_epochs": 400}, schedule="constant", learning_rate=0.05)
    noisy = rows(40)
    noisy = Dataset(noisy.X, noisy.y + np.random.default_rng(0).standard_normal(40), CUBE)
    whole, early = (
        NeuralSurrogate(**{**SMALL, "n_epochs": 400, "patience": patience}, schedule="constant", learning_rate=0.05)
        .fit(noisy)
        .diagnostics
        for patience in (None, 10)
    )
    assert whole["epochs"] == spec.n_epochs
    assert early["epochs"] < 400
    assert (np.array(whole["held_out_loss"]) <= early["held_out_loss"]).all()  # the best of all epochs
    assert max(early["held_out_loss"]) < 2.0  # noise fitted for 400 epochs predicts far worse than the mean


def test_a_conservative_term_promises_less_where_descent_leads() -> None:
    U = 0.5 * sample("sobol", 32, 2, seed=1)
    data = Dataset(U, wavy(U), CUBE)
    plain, careful = (NeuralSurrogate(**SMALL, conservative_weight=weight).fit(data) for weight in (0.0, 0.1))
    far = 0.7 + 0.3 * sample("sobol", 64, 2, seed=2)
    assert careful.predict(far).min() > plain.predict(far).min()
    assert np.corrcoef(careful.predict(U), data.y)[0, 1] > 0.9


@pytest.mark.parametrize("schedule", ["cosine", "constant", "exponential", "linear", "one_cycle", "warmup_cosine"])
def test_a_schedule_has_a_rate_for_each_epoch_and_learns(schedule: str) -> None:
    spec = NeuralSurrogate(**SMALL, schedule=schedule)
    rates = spec.rates(50)
    assert rates.shape == (50,)
    assert (rates > 0).all()
    assert rates.max() == pytest.approx(0.02, rel=0.05)
    assert error(spec, rows(64)) < 0.7 * wavy(sample("sobol", 128, 2, seed=9)).std()


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh", "silu"])
def test_every_activation_learns(activation: str) -> None:
    assert error(NeuralSurrogate(**SMALL, activation=activation), rows(64)) < 0.3


@pytest.mark.parametrize("n", [60, 1200])  # with folds of its own for each member, and with one held-out part for all
@pytest.mark.parametrize("ensemble_size", [1, 8])
def test_the_intervals_hold_what_was_not_seen(n: int, ensemble_size: int) -> None:
    covered = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X, at = rng.random((n, 2)), rng.random((200, 2))
        y, there = (wavy(U) + 0.2 * rng.standard_normal(len(U)) for U in (X, at))
        spec = NeuralSurrogate(**{**SMALL, "ensemble_size": ensemble_size, "n_epochs": 30 if n > 1000 else 150})
        fitted = spec.fit(Dataset(X, y, CUBE), jax.random.key(seed))
        low, high = fitted.interval(at)
        covered.append(np.mean((low <= there) & (there <= high)))
        s = fitted.uncertainty(np.vstack([at, [[3.0, -2.0]]]))
        assert s.max() > 1.5 * s.min()  # no constant
    assert 0.85 <= np.mean(covered) <= 0.995


def test_threads_change_no_bit() -> None:
    spec = NeuralSurrogate(**{**SMALL, "ensemble_size": 9, "n_epochs": 20})
    alone = surrogate_files(spec.fit(rows(24)))
    together = in_threads(lambda _: surrogate_files(spec.fit(rows(24))), range(2), n_workers=2)
    assert together == [alone, alone]


def test_a_fit_goes_on_from_equal_values_as_from_none() -> None:
    data = rows(32)
    flat = NeuralSurrogate(**SMALL).fit(Dataset(data.X[:3], np.ones(3), CUBE))
    new, after = (NeuralSurrogate(**SMALL).fit(data, None, start) for start in (None, flat))
    assert new.state.weights.tolist() == after.state.weights.tolist()


def test_a_fit_that_goes_on_takes_fewer_epochs() -> None:
    spec = NeuralSurrogate(**SMALL)
    before = spec.fit(rows(32))
    assert (before.diagnostics["epochs"], spec.fit(rows(36), None, before).diagnostics["epochs"]) == (150, 38)
    other = NeuralSurrogate(**{**SMALL, "hidden_layers": (8,)})
    assert other.fit(rows(36), None, before).diagnostics["epochs"] == 150  # nothing to go on from


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_layers": ()}, r"hidden_layers: expected integers from 1 to 4096, at least one, got \(\)"),
        ({"hidden_layers": (8, 0)}, "hidden_layers: expected integers from 1 to 4096"),
        ({"hidden_layers": 8}, "hidden_layers: expected integers from 1 to 4096"),
        ({"activation": "sine"}, "activation: expected one of gelu, relu, silu, tanh, got 'sine'"),
        ({"schedule": "step"}, "schedule: expected one of constant, cosine"),
        ({"ensemble_size": 0}, "ensemble_size: expected an integer from 1 to 1024, got 0"),
        ({"n_epochs": 0}, "n_epochs: expected an integer >= 1, got 0"),
        ({"batch_size": 2.5}, "batch_size: expected an integer >= 1, got 2.5"),
        ({"patience": 0}, "patience: expected an integer >= 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number from 1e-06 to 1, got 0.0"),
        ({"dropout_rate": 1.0}, "dropout_rate: expected a number from 0 to 0.9, got 1.0"),
        ({"weight_decay": -1.0}, r"weight_decay: expected a number from 0 to 1e\+06, got -1.0"),
        ({"conservative_weight": -0.5}, r"conservative_weight: expected a number from 0 to 1e\+06, got -0.5"),
        ({"transform": "auto"}, "transform: expected one of standardize, log, yeo_johnson, got 'auto'"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        NeuralSurrogate(**options)
