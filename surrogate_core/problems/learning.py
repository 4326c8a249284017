"""A model to be tuned: the cross-validated error of a support vector regression, by its hyperparameters."""

from functools import cache
from typing import Any

from surrogate_core.problems.problem import Problem
from surrogate_core.space import Float, SearchSpace


@cache
def _table() -> tuple[Any, Any]:
    from sklearn.datasets import load_diabetes  # shipped with scikit-learn: nothing is downloaded

    return load_diabetes(return_X_y=True)


def _error(C: float, gamma: float, epsilon: float) -> float:
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    model = make_pipeline(StandardScaler(), SVR(C=C, gamma=gamma, epsilon=epsilon))
    folds = KFold(5, shuffle=True, random_state=0)
    return float(-cross_val_score(model, *_table(), cv=folds, scoring="neg_root_mean_squared_error").mean())


def svr_diabetes() -> Problem:
    """Root mean squared error of five folds of scikit-learn's diabetes data; nearly flat around its minimum.

    That is the best of two searches by differential evolution and Nelder-Mead, of 2,300 evaluations each.
    """
    space = SearchSpace(
        {"C": Float(1e-1, 1e4, log=True), "gamma": Float(1e-5, 1.0, log=True), "epsilon": Float(1e-2, 1e2, log=True)}
    )
    minimizer = {"C": 71.28244402251038, "gamma": 0.023221581059408424, "epsilon": 27.775129652577306}
    source = "data of Efron, Hastie, Johnstone & Tibshirani (2004), Ann. Statist. 32, 407; minimum: the best known"
    return Problem("svr_diabetes", _error, space, minimizer, 53.379127438394576, source)
