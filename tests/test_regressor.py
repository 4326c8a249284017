"""The scikit-learn regressor: scikit-learn's own checks, and what its users do with a regressor."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from surrogate_core import Dataset, GPSurrogate, SurrogateRegressor
from surrogate_core.sampling import sample

X = np.array([2.0, 10.0]) * sample("sobol", 24, 2, seed=1) + [0.0, 100.0]
y = np.sin(2 * X[:, 0]) + 0.01 * X[:, 1]
QUICK = GPSurrogate(n_starts=1)


@parametrize_with_checks([SurrogateRegressor(QUICK)])
def test_scikit_learns_checks(estimator: SurrogateRegressor, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_it_is_the_surrogate_that_it_wraps() -> None:
    regressor, fitted = SurrogateRegressor(QUICK).fit(X, y), QUICK.fit(Dataset(X, y), jax.random.key(0))
    mean, std = regressor.predict(X + 0.01, return_std=True)
    assert np.array_equal(mean, fitted.predict(X + 0.01))
    assert np.array_equal(std, fitted.uncertainty(X + 0.01))
    assert np.array_equal(regressor.gradient(X), fitted.gradient(X))
    assert regressor.score(X, y) > 0.99
    assert regressor.surrogate_.interval(X)[0].shape == (24,)


def test_the_gradient_is_in_the_units_of_the_columns() -> None:
    at = X[:5] + np.array([0.0, 0.5])
    gradient = SurrogateRegressor(QUICK).fit(X, y).gradient(at)
    assert gradient == pytest.approx(np.column_stack([2 * np.cos(2 * at[:, 0]), np.full(5, 0.01)]), abs=0.1)


def test_the_default_is_a_gaussian_process_and_a_kind_goes_by_its_name() -> None:
    by_default, by_name = SurrogateRegressor().fit(X, y), SurrogateRegressor("gaussian_process").fit(X, y)
    assert by_default.surrogate_.asked == GPSurrogate()
    assert np.array_equal(by_default.predict(X), by_name.predict(X))


@pytest.mark.parametrize("n", [1, 2])
def test_a_row_or_two_are_enough(n: int) -> None:
    assert SurrogateRegressor(QUICK).fit(X[:n], y[:n]).predict(X[:n]) == pytest.approx(y[:n], abs=1.0)


def test_constant_values_and_columns_are_learned_as_such() -> None:
    flat = SurrogateRegressor(QUICK).fit(np.column_stack([X, np.full(24, 7.0)]), np.full(24, -3.0))
    at = np.column_stack([X + 0.1, np.full(24, 8.0)])
    assert flat.predict(at) == pytest.approx(np.full(24, -3.0))
    assert np.abs(flat.gradient(at)).max() < 1e-6


def test_names_of_columns_are_kept_and_their_order_is_checked() -> None:
    frame = pa.table({"mach": X[:, 0], "altitude": X[:, 1]}).to_pandas()
    regressor = SurrogateRegressor(QUICK).fit(frame, y)
    assert regressor.feature_names_in_.tolist() == ["mach", "altitude"]
    assert np.array_equal(regressor.predict(frame), regressor.surrogate_.predict(X))
    for ask in (regressor.predict, regressor.gradient):
        with pytest.raises(ValueError, match="feature names should match"):
            ask(frame[["altitude", "mach"]])


@pytest.mark.parametrize("ask", ["predict", "gradient"])
def test_points_that_do_not_fit_are_refused(ask: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(SurrogateRegressor(), ask)(X)
    with pytest.raises(ValueError, match="3 features, but SurrogateRegressor is expecting 2"):
        getattr(SurrogateRegressor(QUICK).fit(X, y), ask)(np.ones((4, 3)))


def test_it_goes_into_pipelines_and_cross_validation() -> None:
    pipeline = make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), SurrogateRegressor(QUICK))
    assert cross_val_score(pipeline, X, y, cv=3).min() > 0.8
    pipeline.set_params(surrogateregressor__surrogate__kernel="rbf")
    assert pipeline.fit(X, y)[-1].surrogate_.spec.kernel == "rbf"


@pytest.mark.parametrize(
    "grid",
    [{"surrogate__kernel": ["matern12", "rbf"]}, {"surrogate": [GPSurrogate(kernel=k) for k in ("matern12", "rbf")]}],
    ids=["fields", "surrogates"],
)
def test_a_search_finds_the_kernel(grid: dict[str, list[Any]]) -> None:
    search = GridSearchCV(SurrogateRegressor(QUICK), grid, cv=3).fit(X, y)
    assert search.best_estimator_.surrogate_.spec.kernel == "rbf"
    assert search.predict(X) == pytest.approx(y, abs=0.01)


def test_fields_of_the_surrogate_are_parameters() -> None:
    regressor = SurrogateRegressor("gaussian_process").set_params(surrogate__kernel="rbf", random_state=3)
    assert regressor.get_params(deep=False) == {"surrogate": GPSurrogate(kernel="rbf"), "random_state": 3}
    assert clone(regressor).get_params() == regressor.get_params()
    assert regressor.get_params()["surrogate__kernel"] == "rbf"
    both = {"surrogate__n_starts": 3, "surrogate": GPSurrogate(kernel="matern32")}
    assert regressor.set_params(**both).surrogate == GPSurrogate(kernel="matern32", n_starts=3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"surrogate__colour": 1}, "surrogate__colour: expected one of .*kernel.* of gaussian_process"),
        ({"surrogate__kernel": "matern53"}, "kernel: expected one of .*got 'matern53'"),
        ({"surrogate": "oracle", "surrogate__kernel": "rbf"}, "surrogate: expected .*got 'oracle'"),
        ({"colour": 1}, "Invalid parameter 'colour'"),
    ],
    ids=str,
)
def test_parameters_that_cannot_be_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SurrogateRegressor().set_params(**params)


@pytest.mark.parametrize("surrogate", ["oracle", 5, GPSurrogate])
def test_what_is_no_surrogate_is_told_at_the_fit(surrogate: Any) -> None:
    with pytest.raises(ValueError, match=r"surrogate: expected .*'gaussian_process'.*, got"):
        SurrogateRegressor(surrogate).fit(X, y)


@pytest.mark.parametrize("random_state", [0, np.int64(5), 2**32 - 1])
def test_a_seed_fixes_the_fit(random_state: Any) -> None:
    one, two = (SurrogateRegressor(GPSurrogate(n_starts=2), random_state).fit(X, y).predict(X + 0.1) for _ in range(2))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_no_seed_draws_one(random_state: Any) -> None:
    regressor = SurrogateRegressor(QUICK, random_state)
    assert regressor.fit(X, y).score(X, y) > 0.99
