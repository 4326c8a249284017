"""`optimize` of every optimizer: from a surrogate, points and bounds in the problem's units to a design."""

from functools import partial
from typing import Any

import numpy as np

from surrogate_core.acquisition import Goal, Name
from surrogate_core.execution import ExecutorSpec
from surrogate_core.optimizers.local import LocalOptimizer
from surrogate_core.optimizers.loop import Paths
from surrogate_core.optimizers.multi_start import MultiStartOptimizer
from surrogate_core.optimizers.result import OptimizationResult, Optimum, Trajectory, same_design
from surrogate_core.optimizers.search import Aim, Ends, descend
from surrogate_core.optimizers.status import Status
from surrogate_core.optimizers.untraced import AnySurrogate, descend_untraced
from surrogate_core.sampling import feasible_sample, sample
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.support import rows
from surrogate_core.trust import assess

N_ROWS = 16  # the best rows of the data, which starts may be at
MAX_OPTIMA = 16


def optimize(
    optimizer: LocalOptimizer | MultiStartOptimizer,
    surrogate: FittedSurrogate | AnySurrogate,
    x0: Any = None,
    bounds: Any = None,
    goal: Goal | Name = "mean",
    seed: int = 0,
    executor: ExecutorSpec | None = None,
    space: SearchSpace | None = None,
) -> OptimizationResult:
    """Minimizes a goal on a surrogate.

    Args:
        optimizer: of many starts, or of those given.
        surrogate: fitted; or any other object with `predict`, and perhaps `gradient` and `uncertainty`, of points
            (n, d) in the problem's units, and perhaps a `space`. JAX cannot trace it, so scipy follows each start.
        x0: (d,) or (k, d) points to start from, in the problem's units, all of which are followed; by default the row
            of the data, or with many starts the rows, at which the surrogate predicts least.
        bounds: (low, high) of each variable in the problem's units, within those of the space, which are the default.
        goal: what is minimized, or its name.
        seed: fixes every bit.
        executor: where starts are followed that cannot be traced; by default here, or in processes where that is sooner
            done. Of the local optimizer only max_iterations, tolerance, patience and min_improvement matter then.
        space: of a surrogate that has none.

    Raises:
        ValueError: a shape or a bound does not fit.
    """
    goal = goal if isinstance(goal, Goal) else Goal(goal)
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: expected an integer >= 0, got {seed!r}")
    if not isinstance(surrogate, FittedSurrogate):
        return _untraced(optimizer, surrogate, x0, bounds, goal, seed, executor, space)
    fitted, space = surrogate, surrogate.space
    box = unit_box(space, bounds)
    known = rows_of(fitted, box)
    given = points_of(space, x0, box)
    aim = Aim(fitted, goal.form, [goal.weights(fitted)], box)
    if isinstance(optimizer, MultiStartOptimizer):
        rows_ = np.concatenate([given, known[: max(N_ROWS - len(given), 0)]])
        (ends,), _ = optimizer.search(aim, rows_, seed, len(given))
    else:
        starts = given if len(given) else known[:1]
        (ends,) = descend(aim, optimizer, starts[None], np.concatenate([starts, known]), seed)
    return _result(fitted, space, goal, ends, box)


def _untraced(
    optimizer: LocalOptimizer | MultiStartOptimizer,
    surrogate: AnySurrogate,
    x0: Any,
    bounds: Any,
    goal: Goal,
    seed: int,
    executor: ExecutorSpec | None,
    space: SearchSpace | None,
) -> OptimizationResult:
    space = getattr(surrogate, "space", space)
    if space is None:
        if bounds is None:
            raise ValueError("bounds: expected (low, high) of each variable, as the surrogate has no space, got none")
        space, bounds = SearchSpace.from_bounds(bounds), None
    box = unit_box(space, bounds)
    starts = points_of(space, x0, box)
    local = optimizer
    if isinstance(optimizer, MultiStartOptimizer):
        local, n_drawn = optimizer.optimizer, max(optimizer.n_starts - len(starts), 0)  # all given are followed
        drawn = feasible_sample(space, "sobol", n_drawn, seed, box) if n_drawn else starts[:0]
        if n_drawn and len(drawn) == 0:  # nothing meets the constraints
            drawn = box[:, 0] + sample("sobol", n_drawn, space.n_dims, seed) * (box[:, 1] - box[:, 0])
        starts = np.concatenate([starts, drawn])
    elif len(starts) == 0:
        raise ValueError("x0: expected a point to start from, as the surrogate tells of no data, got none")
    assert not isinstance(local, MultiStartOptimizer)
    how = (local, executor or ExecutorSpec("auto"))
    return _result(surrogate, space, goal, descend_untraced(surrogate, space, goal, starts, box, *how), box)


def _result(
    surrogate: FittedSurrogate | AnySurrogate, space: SearchSpace, goal: Goal, ends: Ends, box: np.ndarray
) -> OptimizationResult:
    X, paths = space.decode(ends.U), ends.paths
    violation = max(0.0, float(space.violation(X[0])))
    status = Status(int(paths.status[0]))
    told = status.message
    if violation > 0:
        told = f"no design was found that meets the known constraints: they are missed by {violation:.3g}"
    optima = _optima(surrogate, space, X, ends)
    agreement = optima[0].n_starts / len(X) if len(X) > 1 else None
    report = partial(assess, surrogate, X[0], kappa=goal.caution, agreement=agreement, box=box, violation=violation)
    return OptimizationResult(
        x=X[0],
        fun=float(np.asarray(surrogate.predict(X[:1]))[0]),
        success=status.is_success and violation == 0,
        status=status,
        message=told,
        nit=int(paths.n_iterations.sum()),
        nfev=int(paths.n_evaluations.sum()),
        trajectory=_trajectory(space, paths),
        optima=optima,
        violation=violation,
        metadata={"goal": goal, "params": space.params(X[0]), "ended": _ended(paths)},
        paths=paths,
        assess=report,
    )


def _optima(
    surrogate: FittedSurrogate | AnySurrogate, space: SearchSpace, X: np.ndarray, ends: Ends
) -> tuple[Optimum, ...]:
    """The distinct ends, the best first; each start counts for the best that it is near to."""
    kept: list[int] = []
    counts: list[int] = []
    for i in range(len(X)):
        near = same_design(space, X[kept], X[i])
        if near.any():
            counts[int(np.argmax(near))] += 1
        elif np.isfinite(ends.values[i]) or not kept:
            kept.append(i)
            counts.append(1)
    shown = kept[:MAX_OPTIMA]
    predicted = np.asarray(surrogate.predict(X[shown]))
    uncertainty = np.asarray(
        surrogate.uncertainty(X[shown]) if hasattr(surrogate, "uncertainty") else predicted * np.nan
    )
    return tuple(
        Optimum(X[i], float(ends.values[i]), float(predicted[k]), float(uncertainty[k]), counts[k])
        for k, i in enumerate(shown)
    )


def _trajectory(space: SearchSpace, paths: Paths) -> Trajectory:
    n = int(paths.n_evaluations[0])
    points = paths.points[0, :n]
    x = space.decode(points) if points.shape[1] else points
    return Trajectory(paths.losses[0, :n], paths.rates[0, :n], paths.accepted[0, :n], x)


def _ended(paths: Paths) -> dict[str, int]:
    """How many starts ended why."""
    counts = np.bincount(paths.status, minlength=len(Status))
    return {status.name.lower(): int(counts[status]) for status in Status if counts[status]}


def rows_of(fitted: FittedSurrogate, box: np.ndarray) -> np.ndarray:
    """Rows of the data in unit-cube coordinates, brought within the box, by what is predicted there."""
    U = np.clip(rows(fitted.spec.support(fitted.state)), *box.T)
    return U[np.argsort(fitted.predict(fitted.space.decode(U)), kind="stable")]


def points_of(space: SearchSpace, x0: Any, box: np.ndarray) -> np.ndarray:
    """Starts in the problem's units as unit-cube points within the box, (k, d); none where there is none."""
    if x0 is None:
        return np.empty((0, space.n_dims))
    X = np.atleast_2d(_numbers("x0", x0))
    if X.ndim != 2 or X.shape[1] != space.n_dims or not np.isfinite(X).all():
        raise ValueError(f"x0: expected finite points of shape ({space.n_dims},) or (k, {space.n_dims}), got {x0!r}")
    low, high = space.bounds.T
    return np.clip(space.encode(np.clip(X, low, high)), *box.T)


def _numbers(name: str, given: Any) -> np.ndarray:
    try:
        return np.asarray(given, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, got {given!r}") from error


def unit_box(space: SearchSpace, bounds: Any) -> np.ndarray:
    """Bounds in the problem's units as those in the unit cube, (d, 2); without any, the cube."""
    if bounds is None:
        return np.tile([0.0, 1.0], (space.n_dims, 1))
    edges = _numbers("bounds", bounds)
    if edges.shape != (space.n_dims, 2):
        raise ValueError(f"bounds: expected {space.n_dims} pairs (low, high), got shape {edges.shape}")
    for name, (low, high), (least, most) in zip(space.names, edges, space.bounds, strict=True):
        if not least <= low <= high <= most:
            raise ValueError(f"bounds: expected {least:g} <= low <= high <= {most:g} of {name}, got {low:g}, {high:g}")
    U = space.encode(edges.T).T
    for name, given, met, own in zip(space.names, edges, space.decode(U.T).T, space.bounds, strict=True):
        if not (np.isclose(given, met) | (given == own)).all():
            raise ValueError(f"bounds: expected values of {name}, got {given[0]:g} and {given[1]:g}")
    return np.where(edges == space.bounds, [0.0, 1.0], U)
