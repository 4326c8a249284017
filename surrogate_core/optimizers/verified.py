"""A trust region in which the surrogate is the model and the true function decides.

Each step goes to where the goal is least within the radius. Of the measured reduction, the part that the surrogate had
foretold says whether the step stands, and whether the region grows or shrinks; steps between two measurements are taken
on the surrogate's word, and taken back together where it does not hold.

Source: Alexandrov, Dennis, Lewis & Torczon (1998), "A trust-region framework for managing the use of approximation
models in optimization", Structural Optimization 15, 16, section 3.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from surrogate_core.acquisition import Goal, Name
from surrogate_core.dataset import Dataset
from surrogate_core.optimizers.lbfgs import LBFGSOptimizer
from surrogate_core.optimizers.optimize import points_of, rows_of, unit_box
from surrogate_core.optimizers.result import OptimizationResult, Trajectory
from surrogate_core.optimizers.search import Aim, descend
from surrogate_core.optimizers.status import Status
from surrogate_core.optimizers.trust_region import AT_EDGE, BAD, GOOD, TrustRegionOptimizer
from surrogate_core.refinement import fit_or_standardize
from surrogate_core.sampling import sample
from surrogate_core.space import Categorical
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.predictive import Predictive
from surrogate_core.trust import Promise, assess_measured, disappointment

N_STARTS = 8  # within the region, one of them where it is
LEAST_RADIUS = 1e-5  # in unit-cube units


class Step(NamedTuple):
    """One row of the trajectory; `measured` is NaN where the true function was not called or gave no value."""

    x: np.ndarray
    expected: Predictive
    extrapolation: float
    measured: float
    radius: float
    accepted: bool
    why: str


def optimize_verified(
    optimizer: TrustRegionOptimizer,
    fitted: FittedSurrogate,
    x0: Any,
    bounds: Any,
    true_function: Callable[[np.ndarray], float],
    dataset: Dataset | None,
    goal: Goal | Name = "mean",
    seed: int = 0,
) -> OptimizationResult:
    """Minimizes the true function with as few calls as may be; see `TrustRegionOptimizer.optimize`.

    Ctrl-C ends it with what had been measured.
    """
    if optimizer.refit and dataset is None:
        raise ValueError("dataset: expected what the surrogate was fitted to, as refit is true, got none")
    space, goal = fitted.space, goal if isinstance(goal, Goal) else Goal(goal)
    box = unit_box(space, bounds)
    given = points_of(space, x0, box)
    here = (given if len(given) else rows_of(fitted, box))[0]
    best_sample = fitted.incumbent if dataset is None else float(dataset.ok.y.min())
    steps: list[Step] = []
    cells = np.array([1.0 if isinstance(v, Categorical) else 1 / v.n_values for v in space.variables])
    key, n_calls, status = jax.random.key(seed), 0, Status.MAX_ITERATIONS

    def measure(u: np.ndarray) -> tuple[float, str]:
        nonlocal fitted, dataset, n_calls
        x = space.decode(u)
        n_calls += 1
        try:
            value, failed = float(true_function(x)), ""
        except Exception as error:  # noqa: BLE001 # a black box may raise anything
            value, failed = math.nan, f"{type(error).__name__}: {error}"
        if not math.isfinite(value):
            return math.nan, failed or f"the true function gave {value}"
        if optimizer.refit and dataset is not None:
            dataset = dataset.append(Dataset(x[None], np.array([value]), space))
            fitted = fit_or_standardize(fitted.asked, dataset, jax.random.fold_in(key, n_calls), fitted)
        return value, ""

    try:
        foretold = _told(fitted, here)
        value, failed = measure(here)
        steps.append(Step(*foretold, value, math.nan, not failed, failed or "the start"))
        if failed:
            return _result(fitted, steps, n_calls, Status.NOT_FINITE, dataset, best_sample, box)
        firm, radius, n_unchecked = here, optimizer.initial_radius, 0  # firm: where `value` was measured
        for number in range(optimizer.max_iterations):
            reach = np.maximum(radius, cells)  # whatever the radius, a step to the next value or another choice
            region = np.column_stack([np.maximum(box[:, 0], here - reach), np.minimum(box[:, 1], here + reach)])
            there = _least(fitted, goal, here, region, seed + number)
            foretold = _told(fitted, there)
            promised = float(fitted.predict(space.decode(firm)) - foretold[1].mean)
            length = float(np.abs(there - firm).max())
            if length == 0 or promised <= 0:
                radius *= BAD
                steps.append(Step(*foretold, math.nan, radius, False, "nothing better is promised"))
                if radius < LEAST_RADIUS:
                    status = Status.RADIUS_TOO_SMALL
                    break
                continue
            n_unchecked += 1
            if n_unchecked < optimizer.validate_every:
                here = there
                steps.append(Step(*foretold, math.nan, radius, True, "on the surrogate's word"))
                continue
            if n_calls >= optimizer.max_evaluations:
                status = Status.MAX_EVALUATIONS
                break
            measured, failed = measure(there)
            n_unchecked = 0
            ratio = (value - measured) / promised if not failed else -math.inf
            accepted = ratio > optimizer.eta
            told = failed or f"{ratio:.2f} of the promised reduction"
            steps.append(Step(*foretold, measured, radius, accepted, told))
            if accepted:
                firm, value = there, measured
            here = firm
            if ratio < BAD:
                radius = min(radius, length) * (BAD if failed or ratio < 0 else 0.5)
            elif ratio > GOOD and length > AT_EDGE * radius:
                radius = min(2 * radius, optimizer.max_radius)
            if radius < LEAST_RADIUS:
                status = Status.RADIUS_TOO_SMALL
                break
        if n_unchecked and n_calls < optimizer.max_evaluations:  # what was taken on the surrogate's word
            foretold = _told(fitted, here)
            measured, failed = measure(here)
            told = failed or "the end"
            steps.append(Step(*foretold, measured, radius, not failed and measured < value, told))
    except KeyboardInterrupt:
        if not steps:
            raise
        status = Status.INTERRUPTED
    return _result(fitted, steps, n_calls, status, dataset, best_sample, box)


def _least(fitted: FittedSurrogate, goal: Goal, here: np.ndarray, region: np.ndarray, seed: int) -> np.ndarray:
    """(d,) where the goal is least within the region."""
    others = region[:, 0] + sample("sobol", N_STARTS - 1, len(here), seed) * (region[:, 1] - region[:, 0])
    starts = np.concatenate([here[None], others])
    aim = Aim(fitted, goal.form, [goal.weights(fitted)], region)
    (ends,) = descend(aim, LBFGSOptimizer(), starts[None], starts, seed)
    return np.asarray(ends.U[0])


def _told(fitted: FittedSurrogate, u: np.ndarray) -> tuple[np.ndarray, Predictive, float]:
    """A point in the problem's units, what is expected there, and how far from the data that is."""
    x = fitted.space.decode(u)
    return x, fitted.predictive(x), float(fitted.extrapolation(x))


def _result(
    fitted: FittedSurrogate,
    steps: list[Step],
    n_calls: int,
    status: Status,
    dataset: Dataset | None,
    best_sample: float,
    box: np.ndarray,
) -> OptimizationResult:
    """What was found; `best_sample` is the best value that was known before."""
    measured = np.array([step.measured for step in steps])
    best = int(np.nanargmin(measured)) if np.isfinite(measured).any() else 0
    space, x = fitted.space, steps[best].x
    violation = max(0.0, float(space.violation(x)))
    told = [step for step in steps[1:] if np.isfinite(step.measured)]
    errors = [float(step.expected.standardized_error(np.asarray(step.measured))) for step in told]
    report = partial(
        assess_measured,
        fitted,
        x,
        Promise.of(steps[best].expected, disappointment()),
        float(measured[best]),
        best=float(np.fmin(best_sample, measured[0])),
        extrapolation=steps[best].extrapolation,
        errors=errors,
        box=box,
        violation=violation,
    )
    return OptimizationResult(
        x=x,
        fun=float(measured[best]),
        success=status.is_success and violation == 0,
        status=status,
        message=status.message,
        nit=len(steps) - 1,
        nfev=n_calls,
        trajectory=Trajectory(
            fun=np.array([float(step.expected.mean) for step in steps]),
            rate=np.array([step.radius for step in steps]),
            accepted=np.array([step.accepted for step in steps]),
            x=np.array([step.x for step in steps]),
            measured=measured,
            why=tuple(step.why for step in steps),
        ),
        violation=violation,
        metadata={"params": space.params(x), "surrogate": fitted, "dataset": dataset},
        assess=report,
    )
