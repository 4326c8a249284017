"""Many starts on a surrogate that JAX cannot trace: scipy's L-BFGS-B, the starts shared among processes.

Source: Zhu, Byrd, Lu & Nocedal (1997), ACM TOMS 23(4), 550.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from surrogate_core.acquisition import Goal
from surrogate_core.execution import ExecutorSpec, open_pool
from surrogate_core.optimizers.loop import Paths
from surrogate_core.optimizers.polish import drawn_into, is_plain, meets, polish, valid
from surrogate_core.optimizers.search import Ends
from surrogate_core.optimizers.status import Status
from surrogate_core.space import SearchSpace

SIGNS = {"mean": 0.0, "cautious": 1.0, "exploring": -1.0}  # of the goals that predictions alone can tell


class AnySurrogate(Protocol):
    """What can be asked of any surrogate; `gradient` and `uncertainty` need not be there."""

    def predict(self, X: np.ndarray) -> Any: ...


class _Path(NamedTuple):
    u: np.ndarray
    value: float
    n_iterations: int
    losses: list[float]
    status: Status


@dataclass(frozen=True)
class _Descend:
    """One start; travels to worker processes with the surrogate."""

    surrogate: AnySurrogate
    space: SearchSpace
    box: np.ndarray
    kappa: float
    max_iterations: int
    tolerance: float

    def __call__(self, start: np.ndarray) -> _Path:
        from scipy.optimize import minimize

        losses: list[float] = []
        has_gradient = hasattr(self.surrogate, "gradient") and self.kappa == 0

        def value(u: np.ndarray) -> Any:
            x = self.space.decode(u)
            loss = self.value(u)
            losses.append(loss)
            if not has_gradient:
                return loss
            slope = self.space.slope(x)
            gradient = np.asarray(self.surrogate.gradient(x[None]))[0]  # type: ignore[attr-defined]
            return loss, gradient / np.where(slope > 0, slope, np.inf)

        options = {"maxiter": self.max_iterations, "gtol": self.tolerance, "ftol": 1e-12}
        found = minimize(value, start, jac=has_gradient, method="L-BFGS-B", bounds=self.box, options=options)
        status = {0: Status.CONVERGED, 1: Status.MAX_ITERATIONS}.get(found.status, Status.LINE_SEARCH_FAILED)
        if not np.isfinite(found.fun):
            status = Status.NOT_FINITE
        return _Path(found.x, float(found.fun), int(found.nit), losses, status)

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
    max_iterations: int,
    tolerance: float,
    executor: ExecutorSpec,
) -> Ends:
    """Where the starts, (S, d) of the unit cube, end, the best first; one that raises has failed.

    Raises:
        ValueError: the goal is not one of predictions, or every start failed, and for what.
    """
    if goal.name not in SIGNS:
        known = ", ".join(SIGNS)
        raise ValueError(f"goal: expected one of {known} of a surrogate that cannot be traced, got {goal.name!r}")
    one = _Descend(surrogate, space, box, SIGNS[goal.name] * goal.kappa, max_iterations, tolerance)
    with open_pool(one, executor) as pool:
        outcomes = pool.run(list(starts))
    failed = [outcome for outcome in outcomes if outcome.status != "ok"]
    if len(failed) == len(starts):
        raise ValueError(f"surrogate: expected one that can be followed, got {failed[0].reason}")
    made = [
        outcome.value if outcome.status == "ok" else _Path(u, np.inf, 0, [np.nan], Status.FAILED)
        for outcome, u in zip(outcomes, starts, strict=True)
    ]
    U = np.array([path.u for path in made])
    values = np.array([path.value for path in made])
    if not is_plain(space):
        U = drawn_into(space, valid(space, U), starts)
        ok = np.isfinite(values)
        U[ok] = polish(
            space,
            U[ok],
            values=lambda points, rows: np.array([one.value(u) for u in points]),
            follow=lambda points, rows, bounds: points,
            box=box,
            seed=0,
        )
        met = ok & meets(space, U)
        values = np.array([one.value(u) if is_met else np.inf for u, is_met in zip(U, met, strict=True)])
    order = np.argsort(values, kind="stable")
    return Ends(U[order], values[order], _paths([made[i] for i in order]))


def _paths(made: list[_Path]) -> Paths:
    turns = max(len(path.losses) for path in made)
    losses = np.full((len(made), turns), np.nan)
    for row, path in zip(losses, made, strict=True):
        row[: len(path.losses)] = path.losses
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
        points=np.empty((len(made), turns, 0)),
    )
