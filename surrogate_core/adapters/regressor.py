"""Any surrogate as a scikit-learn regressor, for pipelines, cross-validation and searches over hyperparameters."""

from dataclasses import fields, replace
from numbers import Integral
from typing import Any, Self

import jax
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from surrogate_core.dataset import Dataset
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.files import SURROGATES
from surrogate_core.surrogates.gaussian_process import GPSurrogate

NESTED = "surrogate__"  # begins the name of a field of the surrogate, as scikit-learn spells it


class SurrogateRegressor(RegressorMixin, BaseEstimator):
    """A surrogate that learns from arrays or data frames, with a gradient.

    Bounds of the variables are the least and greatest value of each column. The surrogate's own fields are parameters
    too: `set_params(surrogate__kernel="rbf")`, and so in the grid of a search. The grid may also list whole surrogates.

    Args:
        surrogate: a surrogate, or the name of its kind; None for `GPSurrogate()`.
        random_state: the seed of the fit: an integer, a `numpy.random.RandomState`, or None for another one each time.

    Attributes:
        surrogate_: what was fitted: intervals, densities, diagnostics and files are there.
        n_features_in_: the number of columns.
        feature_names_in_: their names, if X was a data frame.

    Example:
        >>> from sklearn.model_selection import GridSearchCV
        >>> X = np.linspace(0, 1, 12)[:, None]
        >>> search = GridSearchCV(SurrogateRegressor(), {"surrogate__kernel": ["matern12", "rbf"]})
        >>> search.fit(X, np.sin(6 * X[:, 0])).best_params_
        {'surrogate__kernel': 'rbf'}
        >>> bool(abs(search.best_estimator_.gradient([[0.25]])[0, 0] - 6 * np.cos(1.5)) < 0.1)
        True
    """

    def __init__(self, surrogate: Surrogate | str | None = None, random_state: Any = 0):
        self.surrogate = surrogate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Learns from points (n, d) and their values (n,)."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self.surrogate_: FittedSurrogate = self._spec.fit(Dataset(X, y), jax.random.key(self._seed))
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Means (n,) at points (n, d), and on request the standard deviations of the noise-free function there."""
        X = self._points(X)
        mean = self.surrogate_.predict(X)
        return (mean, self.surrogate_.uncertainty(X)) if return_std else mean

    def gradient(self, X: Any) -> np.ndarray:
        """Gradients (n, d) of `predict` at points (n, d)."""
        X = self._points(X)
        return self.surrogate_.gradient(X)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments, and if `deep` also the fields of the surrogate, as `surrogate__FIELD`."""
        params = super().get_params(deep=False)
        if deep and isinstance(self._named, Surrogate):
            params |= {NESTED + field.name: getattr(self._named, field.name) for field in fields(self._named)}
        return params

    def set_params(self, **params: Any) -> Self:
        """Arguments by name, or fields of the surrogate as `surrogate__FIELD`.

        Raises:
            ValueError: there is no such parameter, or its value is out of range.
        """
        changes = {name.removeprefix(NESTED): params.pop(name) for name in list(params) if name.startswith(NESTED)}
        super().set_params(**params)
        if changes:
            known = [field.name for field in fields(self._spec)]
            if unknown := sorted(set(changes) - set(known)):
                raise ValueError(f"{NESTED}{unknown[0]}: expected one of {', '.join(known)} of {self._spec.kind}")
            self.surrogate = replace(self._spec, **changes)
        return self

    def _points(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float64, reset=False)

    @property
    def _spec(self) -> Surrogate:
        if not isinstance(spec := self._named, Surrogate):
            kinds = ", ".join(map(repr, SURROGATES))
            raise ValueError(
                f"surrogate: expected a surrogate such as GPSurrogate(), None or one of {kinds}, got {spec!r}"
            )
        return spec

    @property
    def _named(self) -> Any:
        """The surrogate that is meant, or what was given for one."""
        if self.surrogate is None:
            return GPSurrogate()
        is_kind = isinstance(self.surrogate, str) and self.surrogate in SURROGATES
        return SURROGATES[self.surrogate]() if is_kind else self.surrogate  # type: ignore[index]

    @property
    def _seed(self) -> int:
        generator = check_random_state(self.random_state)  # it also refuses what is no seed
        return int(self.random_state if isinstance(self.random_state, Integral) else generator.randint(2**31))
