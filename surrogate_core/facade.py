"""The whole workflow behind one object: collect, fit, validate, optimize; made to be subclassed."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from surrogate_core.collection import DataCollector
from surrogate_core.dataset import Dataset
from surrogate_core.execution import ExecutorSpec
from surrogate_core.optimizers.local import LocalOptimizer
from surrogate_core.optimizers.multi_start import MultiStartOptimizer
from surrogate_core.optimizers.registry import AnyOptimizer, make_optimizer
from surrogate_core.optimizers.result import OptimizationResult
from surrogate_core.performance.profiler import timed
from surrogate_core.problems.black_box import BlackBox
from surrogate_core.sampling import Sampling
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.files import SURROGATES
from surrogate_core.trust import Promise, Trust, assess_measured, disappointment, expected_at
from surrogate_core.validation.cross_validation import cross_validate, held_out_r2
from surrogate_core.validation.gates import HELD_OUT
from surrogate_core.validation.held_out import HeldOut

Bounds = Sequence[tuple[float, float]] | SearchSpace


class SurrogateOptimizer:
    """A surrogate and an optimizer that work together.

    Args:
        surrogate_type: "gaussian_process", or `package.module:Class` of one's own, an object with `fit(dataset)` and
            `predict(X)`.
        surrogate_params: what it is made with.
        optimizer_type: "multi_start", "lbfgs", "trust_region", "gradient_descent", or `package.module:Class`, of an
            object with `optimize(surrogate, x0, bounds)`.
        optimizer_params: what it is made with.
        seed: of the fit and the search.

    Attributes:
        surrogate: before `fit_surrogate` what is to be fitted, after it what was; another may be put in its place.
        optimizer: another may be put in its place.
        is_fitted: whether the surrogate predicts.
        training_data: what it was fitted to.

    Raises:
        ValueError: there is no such type, or it does not take the parameters.

    Example:
        >>> from surrogate_core import collect_data
        >>> data = collect_data(lambda x: float((x - 0.3) @ (x - 0.3)), n_samples=24, bounds=[(-1, 1)] * 2)
        >>> found = SurrogateOptimizer(surrogate_params={"n_starts": 2}).fit_surrogate(data).optimize()
        >>> found.x.round(1).tolist()
        [0.3, 0.3]
    """

    def __init__(
        self,
        surrogate_type: str = "gaussian_process",
        surrogate_params: Mapping[str, Any] | None = None,
        optimizer_type: str = "multi_start",
        optimizer_params: Mapping[str, Any] | None = None,
        seed: int = 0,
    ):
        self.surrogate_type = surrogate_type
        self.surrogate_params = dict(surrogate_params or {})
        self.optimizer_type = optimizer_type
        self.optimizer_params = dict(optimizer_params or {})
        self.seed = seed
        self.surrogate: Any = make_surrogate(surrogate_type, self.surrogate_params)
        self.optimizer: AnyOptimizer = make_optimizer(optimizer_type, self.optimizer_params)
        self.training_data: Dataset | None = None
        self._asked: Any = None
        self._fitted: Any = None

    @property
    def is_fitted(self) -> bool:
        return isinstance(self.surrogate, FittedSurrogate) or (
            self._fitted is not None and self._fitted is getattr(self.surrogate, "wrapped", self.surrogate)
        )

    @timed("fit")
    def fit_surrogate(self, data: Dataset) -> "SurrogateOptimizer":
        """Learns a dataset, and returns itself.

        Raises:
            ValueError: the data does not suit the surrogate.
        """
        asked = self._asked if self._fitted is not None and self.surrogate is self._fitted else self.surrogate
        asked = asked.asked if isinstance(asked, FittedSurrogate) else asked
        if isinstance(asked, Surrogate):
            self.surrogate = asked.fit(data, jax.random.key(self.seed))
        else:
            made = asked.fit(data)
            self.surrogate = made if hasattr(made, "predict") else asked
        self._asked, self._fitted, self.training_data = asked, self.surrogate, data
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Mean of the prediction, scalar or (n,), at points in the problem's units."""
        self._check_fitted()
        return np.asarray(self.surrogate.predict(X))

    def gradient(self, X: Any) -> np.ndarray:
        """Of `predict`, (d,) or (n, d)."""
        self._check_fitted()
        return np.asarray(self.surrogate.gradient(X))

    def uncertainty(self, X: Any) -> np.ndarray:
        """Standard deviation of the prediction, scalar or (n,)."""
        self._check_fitted()
        return np.asarray(self.surrogate.uncertainty(X))

    def optimize(self, x0: Any = None, bounds: Any = None, **how: Any) -> Any:
        """What the optimizer finds on the surrogate; see `surrogate_core.optimizers.optimize.optimize`."""
        self._check_fitted()
        if isinstance(self.optimizer, LocalOptimizer | MultiStartOptimizer):
            how = {"seed": self.seed, **how}
            if not isinstance(self.surrogate, FittedSurrogate):
                how = {"space": self._space, **how}
        elif bounds is None:
            bounds = self._space.bounds
        return self.optimizer.optimize(self.surrogate, x0, bounds, **how)

    def validate(self, function: Callable[..., Any], n_samples: int = 64, seed: int = 1000) -> dict[str, float]:
        """How well the surrogate predicts the true function at fresh random points of the space.

        Args:
            function: called with a (d,) array, or, where the data has a space of its own, with keywords.
            n_samples: calls.
            seed: of the points.

        Returns:
            `regression_metrics`, and n_failed; of a surrogate that tells no distributions rmse, mae and r2 alone.

        Raises:
            ValueError: nothing is fitted, or no call gives a value.
        """
        self._check_fitted()
        space = self._space
        rows = _collector(function, space).collect(n_samples, "random", seed)
        ok, n_failed = rows.ok, rows.n_samples - rows.ok.n_samples
        if ok.n_samples == 0:
            raise ValueError(f"function: expected values, got none of {n_samples}: {rows.reason[0]}")
        if isinstance(self.surrogate, FittedSurrogate):
            number = np.arange(ok.n_samples)
            told = HeldOut(ok, number, ((number, self.surrogate.predictive(ok.X)),)).metrics
        else:
            off, about = self.predict(ok.X) - ok.y, ok.y - ok.y.mean()
            told = {"rmse": float(np.sqrt(np.mean(off**2))), "mae": float(np.mean(np.abs(off)))}
            told["r2"] = float(1 - (off @ off) / (about @ about)) if about.any() else float(not off.any())
        return {**told, "n_failed": float(n_failed)}

    def trust(self, found: OptimizationResult) -> Trust:
        """How far a design that was found can be believed, with what cross-validation tells of the surrogate.

        Args:
            found: what `optimize` returned.

        Raises:
            ValueError: nothing is fitted, or the result is of an optimizer of one's own.
        """
        self._check_fitted()
        if not isinstance(found, OptimizationResult):
            raise ValueError(f"found: expected the result of an optimizer of this library, got {found!r}")
        evidence: dict[str, Any] = {}
        if self.training_data is not None:
            rows = self.training_data.ok
            if isinstance(self.surrogate, FittedSurrogate):
                evidence["r2"] = held_out_r2(self.surrogate.asked, rows, self.seed)
            if found.trajectory.measured is None:
                evidence["best"] = float(rows.y[rows.best_index])
        return found.trust_given(**evidence)

    @property
    def _space(self) -> SearchSpace:
        if isinstance(self.surrogate, FittedSurrogate):
            return self.surrogate.space
        assert self.training_data is not None
        return self.training_data.space

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise ValueError("surrogate: expected one that is fitted, got one that is not; call fit_surrogate(data)")


def quick_optimize(
    function: Callable[..., Any],
    bounds: Bounds,
    n_samples: int = 64,
    *,
    surrogate_type: str = "gaussian_process",
    surrogate_params: Mapping[str, Any] | None = None,
    optimizer_type: str = "multi_start",
    optimizer_params: Mapping[str, Any] | None = None,
    sampling: Sampling = "sobol",
    seed: int = 0,
    executor: ExecutorSpec | None = None,
) -> OptimizationResult:
    """Samples a function, fits a surrogate, follows its gradient, and measures what that promises.

    Args:
        function: called with a (d,) array where bounds are given, with keywords where a space is.
        bounds: (low, high) pairs, or a `SearchSpace`.
        n_samples: calls of the function, the last of them for the design that is found.
        surrogate_type, surrogate_params, optimizer_type, optimizer_params: see `SurrogateOptimizer`.
        sampling: design of the samples.
        seed: fixes every bit.
        executor: where the function is called; by default here, one call after the other.

    Returns:
        The better of the design found and the best sample, with `fun` as measured. `metadata` has `promised`,
        `measured`, `best_sample`, and the `dataset` of all calls.

    Raises:
        ValueError: n_samples is below 3, or no call gives a value.
    """
    if n_samples < 3:
        raise ValueError(f"n_samples: expected an integer >= 3, got {n_samples!r}")
    collector = DataCollector(function, bounds, executor)
    workflow = SurrogateOptimizer(surrogate_type, surrogate_params, optimizer_type, optimizer_params, seed)
    data = collector.collect(n_samples - 1, sampling, seed)
    if data.ok.n_samples == 0:
        raise ValueError(f"function: expected values, got none of {data.n_samples}: {data.reason[0]}")
    found = workflow.fit_surrogate(data).optimize()
    if getattr(found, "violation", 0.0) > 0:  # not worth a call
        rows = Dataset(np.asarray(found.x)[None], np.array([np.nan]), data.space, reason=np.array([found.message]))
    else:
        rows = collector.evaluate(np.asarray(found.x)[None])
    measured, best = float(rows.y[0]), data.best_index
    told = {"promised": float(found.fun), "measured": measured, "best_sample": float(data.y[best])}
    metadata = {**found.metadata, **told, "dataset": data.append(rows)}
    report = _measured_report(workflow.surrogate, found, data, rows)
    if measured < data.y[best]:  # False where it failed
        return replace(found, fun=measured, metadata=metadata, assess=report)
    why = f"promised {found.fun:.4g}, measured {measured:.4g}" if rows.status[0] == "ok" else rows.reason[0]
    metadata["params"] = data.space.params(data.X[best])
    message = f"the best sample stays: of the design that was found, {why}"
    kept = {"x": data.X[best], "fun": float(data.y[best]), "optima": (), "violation": 0.0, "assess": report}
    return replace(found, **kept, message=message, metadata=metadata)


@dataclass(frozen=True)
class Candidate:
    """One of the surrogates that were tried; the score is None, and there is an error, where it failed."""

    params: Mapping[str, Any]
    score: float | None
    train_time: float
    error: str = ""


def tune_surrogate_hyperparameters(
    function: Callable[..., Any],
    bounds: Bounds,
    param_grid: Mapping[str, Sequence[Any]],
    n_samples: int = 64,
    *,
    surrogate_type: str = "gaussian_process",
    metric: str = "nlpd",
    folds: int = 5,
    sampling: Sampling = "sobol",
    seed: int = 0,
    on_result: Callable[[Candidate], None] | None = None,
) -> tuple[dict[str, Any], float, list[Candidate]]:
    """Tries every combination of a grid on one dataset, by cross-validation.

    Args:
        function, bounds, n_samples, sampling, seed: see `quick_optimize`.
        param_grid: of the surrogate: a parameter to the values it may take.
        surrogate_type: "gaussian_process".
        metric: one of `regression_metrics`; the least is best, of r2 and coverages the greatest.
        folds: of the cross-validation.
        on_result: called with each candidate as it is done.

    Returns:
        The best parameters, their score, and every candidate in the order of the grid, with the seconds that a fit to
        all samples takes. One that fails is recorded and passed over.

    Raises:
        ValueError: the grid is empty, every candidate failed, or there is no such metric.
    """
    if not param_grid or not all(isinstance(values, list | tuple) and values for values in param_grid.values()):
        raise ValueError(f"param_grid: expected names with lists of values, got {dict(param_grid)!r}")
    if metric not in HELD_OUT:
        raise ValueError(f"metric: expected one of {', '.join(HELD_OUT)}, got {metric!r}")
    data = DataCollector(function, bounds).collect(n_samples, sampling, seed)
    sign = -1.0 if metric == "r2" or metric.startswith("coverage") else 1.0
    tried: list[Candidate] = []
    for values in itertools.product(*param_grid.values()):
        params = dict(zip(param_grid, values, strict=True))
        began = time.perf_counter()
        try:
            spec = make_surrogate(surrogate_type, params)
            spec.fit(data, jax.random.key(seed))
            took = time.perf_counter() - began
            candidate = Candidate(params, cross_validate(spec, data, folds, seed).metrics[metric], took)
        except ValueError as error:
            candidate = Candidate(params, None, time.perf_counter() - began, str(error))
        tried.append(candidate)
        if on_result is not None:
            on_result(candidate)
    scored = [(sign * one.score, one) for one in tried if one.score is not None]
    if not scored:
        raise ValueError(f"param_grid: all {len(tried)} candidates failed, the first with: {tried[0].error}")
    _, best = min(scored, key=lambda pair: pair[0])
    assert best.score is not None
    return dict(best.params), best.score, tried


def _measured_report(surrogate: Any, found: Any, data: Dataset, rows: Dataset) -> Callable[..., Trust]:
    """Of a design that was found and measured, or of the best of the data where that is no worse."""
    best, measured = float(data.y[data.best_index]), float(rows.y[0])
    expected, is_ok = expected_at(surrogate, np.asarray(found.x)), rows.status[0] == "ok"
    known: dict[str, Any] = {"best": best, "extrapolation": None, "agreement": getattr(found, "agreement", None)}
    known["errors"] = [float(expected.standardized_error(rows.y[0]))] if is_ok and np.isfinite(expected.s) else []
    if not (is_ok and measured < best):
        return partial(assess_measured, surrogate, data.X[data.best_index], None, best, **{**known, "agreement": None})
    if isinstance(surrogate, FittedSurrogate):
        known["extrapolation"] = float(surrogate.extrapolation(found.x))
    return partial(assess_measured, surrogate, found.x, Promise.of(expected, disappointment()), measured, **known)


def make_surrogate(kind: str, params: Mapping[str, Any] | None = None) -> Any:
    """A surrogate spec of a kind, or an object of one's own class `package.module:Class`.

    Raises:
        ValueError: there is none, or it does not take the parameters.
    """
    how = dict(params or {})
    if ":" in kind:
        make: Any = BlackBox(kind).resolve()
    elif kind in SURROGATES:
        make = SURROGATES[kind]
        names = [field.name for field in fields(make)]
        if unknown := [name for name in how if name not in names]:
            raise ValueError(f"surrogate_params: expected some of {', '.join(names)}, got {unknown[0]!r}")
    else:
        known = ", ".join(SURROGATES)
        raise ValueError(f"surrogate_type: expected one of {known} or package.module:Class, got {kind!r}")
    try:
        return make(**how)
    except TypeError as error:
        raise ValueError(f"surrogate_params: expected what {kind} takes, got {how!r} ({error})") from error


def _collector(function: Callable[..., Any], space: SearchSpace) -> DataCollector:
    """Which calls with an array where the space is one of bounds, as data collected so has."""
    plain = SearchSpace.from_bounds(space.bounds.tolist())
    return DataCollector(function, space.bounds.tolist() if space == plain else space)
