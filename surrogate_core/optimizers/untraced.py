"""Many starts on a surrogate that JAX cannot trace: scipy's L-BFGS-B, the starts shared among processes.

Source: Zhu, Byrd, Lu & Nocedal (1997), ACM TOMS 23(4), 550.
"""

import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from surrogate_core.acquisition import Goal
from surrogate_core.execution import ExecutorSpec, open_pool
from surrogate_core.optimizers.local import LocalOptimizer
from surrogate_core.optimizers.loop import MAX_POINTS, Paths
from surrogate_core.optimizers.polish import drawn_into, is_plain, meets, polish, valid
from surrogate_core.optimizers.search import N_POLISHED, Ends
from surrogate_core.optimizers.status import Status
from surrogate_core.performance.profiler import GRADIENTS, VALUES, record
from surrogate_core.space import SearchSpace

FLAT = 1e-12  # relative reduction of the value below which scipy ends a start
SIGNS = {"mean": 0.0, "cautious": 1.0, "exploring": -1.0}  # of the goals that predictions alone can tell


class AnySurrogate(Protocol):
    """What can be asked of any surrogate; `gradient` and `uncertainty` need not be there."""

    def predict(self, X: np.ndarray) -> Any: ...


class _Path(NamedTuple):
    u: np.ndarray
    value: float
    n_iterations: int
    losses: list[float]
    points: list[np.ndarray]
    status: Status
    seconds: tuple[float, float] = (0.0, 0.0)  # of values, and of gradients
    has_gradient: bool = False


@dataclass(frozen=True)
class _Descend:
    """One start, (d,), or one with bounds of its own, (d, 3); travels to worker processes with the surrogate.

    Values are divided by `scale`, the size of their differences, so that tolerances mean what they do elsewhere.
    """

    surrogate: AnySurrogate
    space: SearchSpace
    box: np.ndarray
    kappa: float
    optimizer: LocalOptimizer
    scale: float = 1.0

    def __call__(self, start: np.ndarray) -> _Path:
        from scipy.optimize import minimize

        start, box = (start, self.box) if start.ndim == 1 else (start[:, 0], start[:, 1:])
        losses: list[float] = []
        points: list[np.ndarray] = []
        value_s = gradient_s = 0.0
        # scipy, given others, prints a line for each of its callbacks, or returns no status
        free = box[:, 0] < box[:, 1]
        if not free.any():
            loss = self.value(start)
            return _Path(start, loss, 0, [loss], [start], Status.CONVERGED)
        has_gradient = hasattr(self.surrogate, "gradient") and self.kappa == 0

        def whole(part: np.ndarray) -> np.ndarray:
            u = start.copy()
            u[free] = part
            return u

        def value(part: np.ndarray) -> Any:
            nonlocal value_s, gradient_s
            u = whole(part)
            began = time.perf_counter()
            loss = self.value(u)
            value_s += time.perf_counter() - began
            losses.append(loss)
            points.append(u)
            if not has_gradient:
                return loss / self.scale
            x = self.space.decode(u)
            slope = self.space.slope(x)
            began = time.perf_counter()
            gradient = np.asarray(self.surrogate.gradient(x[None]))[0]  # type: ignore[attr-defined]
            gradient_s += time.perf_counter() - began
            return loss / self.scale, (gradient / np.where(slope > 0, slope, np.inf))[free] / self.scale

        best, since, patience = np.inf, 0, self.optimizer.patience or np.inf

        def ends(intermediate_result: Any) -> None:
            nonlocal best, since
            improves = intermediate_result.fun < best - self.optimizer.min_improvement
            best, since = min(best, intermediate_result.fun), 0 if improves else since + 1
            if since >= patience:
                raise StopIteration

        options = {"maxiter": self.optimizer.max_iterations, "gtol": self.optimizer.tolerance, "ftol": FLAT}
        how: dict[str, Any] = {"jac": has_gradient, "bounds": box[free], "options": options, "callback": ends}
        found = minimize(value, start[free], method="L-BFGS-B", **how)
        status = {0: Status.CONVERGED, 1: Status.MAX_ITERATIONS}.get(found.status, Status.LINE_SEARCH_FAILED)
        if found.status == 0 and "PROJECTED GRADIENT" not in found.message.upper():
            status = Status.STALLED
        if since >= patience:
            status = Status.NO_IMPROVEMENT
        if not np.isfinite(found.fun):
            status = Status.NOT_FINITE
        ended = (whole(found.x), self.scale * float(found.fun), int(found.nit), losses, points, status)
        return _Path(*ended, (value_s, gradient_s), has_gradient)

    def value(self, u: np.ndarray) -> float:
        x = self.space.decode(u)
        made = float(np.asarray(self.surrogate.predict(x[None]))[0])
        if self.kappa:
            made += self.kappa * float(np.asarray(self.surrogate.uncertainty(x[None]))[0])  # type: ignore[attr-defined]
        return made


def descend_untraced(
    surrogate: AnySurrogate,
    space: SearchSpace,
    goal: Goal,
    starts: np.ndarray,
    box: np.ndarray,
    optimizer: LocalOptimizer,
    executor: ExecutorSpec,
) -> Ends:
    """Where the starts, (S, d) of the unit cube, end, the best first; one that raises has failed.

    Of the optimizer all that is not of one method matters: iterations, tolerance, patience.

    Raises:
        ValueError: the goal is not one of predictions, or every start failed, and for what.
    """
    if goal.name not in SIGNS:
        known = ", ".join(SIGNS)
        raise ValueError(f"goal: expected one of {known} of a surrogate that cannot be traced, got {goal.name!r}")
    one = _Descend(surrogate, space, box, SIGNS[goal.name] * goal.kappa, optimizer)
    one = replace(one, scale=_spread([_tried(one, u) for u in starts]))
    with open_pool(one, executor) as pool:

        def descended(points: np.ndarray, _rows: np.ndarray, bounds: np.ndarray) -> np.ndarray:
            outcomes = pool.run([np.column_stack(pair) for pair in zip(points, bounds, strict=True)])
            ended = zip(outcomes, points, strict=True)
            return np.array([outcome.value.u if outcome.status == "ok" else u for outcome, u in ended])

        outcomes = pool.run(list(starts))
        failed = [outcome for outcome in outcomes if outcome.status != "ok"]
        if len(failed) == len(starts):
            raise ValueError(f"surrogate: expected one that can be followed, got {failed[0].reason}")
        made = [
            outcome.value if outcome.status == "ok" else _Path(u, np.inf, 0, [np.nan], [u], Status.FAILED)
            for outcome, u in zip(outcomes, starts, strict=True)
        ]
        for name, i, counted in ((VALUES, 0, made), (GRADIENTS, 1, [path for path in made if path.has_gradient])):
            record(name, sum(path.seconds[i] for path in counted), sum(len(path.losses) for path in counted))
        U, values = np.array([path.u for path in made]), np.array([path.value for path in made])
        if not is_plain(space):
            U = drawn_into(space, valid(space, U), starts)
            ok = np.isfinite(values)
            best = np.flatnonzero(ok)[np.argsort(values[ok], kind="stable")[:N_POLISHED]]
            tried = lambda points, _rows: np.array([_tried(one, u) for u in points])  # noqa: E731
            U[best] = polish(space, U[best], values=tried, follow=descended, box=box, seed=0)
            met = ok & meets(space, U)
            values = np.array([_tried(one, u) if is_met else np.inf for u, is_met in zip(U, met, strict=True)])
    order = np.argsort(values, kind="stable")
    return Ends(U[order], values[order], _paths([made[i] for i in order]))


def _tried(one: _Descend, u: np.ndarray) -> float:
    """The value there, infinite where the surrogate raises."""
    try:
        return one.value(u)
    except Exception:  # noqa: BLE001 # it is anybody's
        return np.inf


def _spread(values: list[float]) -> float:
    """The size of differences among values: 1 where there are none."""
    finite = np.array([value for value in values if np.isfinite(value)])
    size = float(np.ptp(finite)) if len(finite) > 1 else float(np.abs(finite).max(initial=0.0))
    return size if np.isfinite(size) and size > 0 else 1.0


def _paths(made: list[_Path]) -> Paths:
    turns = max(len(path.losses) for path in made)
    losses = np.full((len(made), turns), np.nan)
    for row, path in zip(losses, made, strict=True):
        row[: len(path.losses)] = path.losses
    n_dims = len(made[0].u)
    keeps = len(made) * turns * n_dims <= MAX_POINTS
    points = np.zeros((len(made), turns, n_dims if keeps else 0))
    for row, path in zip(points, made, strict=True):
        row[: len(path.points)] = path.points if keeps else np.empty((len(path.points), 0))
    return Paths(
        U=np.array([path.u for path in made]),
        values=np.array([path.value for path in made]),
        slopes=np.full(len(made), np.nan),
        n_iterations=np.array([path.n_iterations for path in made]),
        n_evaluations=np.array([len(path.losses) for path in made]),
        status=np.array([path.status for path in made]),
        losses=losses,
        rates=np.full_like(losses, np.nan),
        accepted=np.isfinite(losses),
        points=points,
    )
