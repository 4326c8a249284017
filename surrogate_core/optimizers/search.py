"""Descents on a surrogate: what is minimized, from which points, to which valid designs.

Notation: S: starts; G: goals, which are weights of one form of `acquisition`; U: points of the unit cube.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from surrogate_core.acquisition import Form, Weights, acquisition
from surrogate_core.optimizers.local import LocalOptimizer
from surrogate_core.optimizers.loop import Objective, Paths, follow
from surrogate_core.optimizers.polish import drawn_into, is_plain, meets, polish, valid
from surrogate_core.performance.profiler import VALUES, tallied
from surrogate_core.precision import float64
from surrogate_core.surrogates.base import FittedSurrogate

FEW_POINTS = 64  # that are evaluated at once; more in chunks
N_POLISHED = 4  # ends of each goal


@dataclass(frozen=True, eq=False)
class Ends:
    """Where the starts of one goal ended, the best first.

    Args:
        U: (S, d) valid points of the unit cube.
        values: (S,) of what was minimized, infinite where known constraints are not met.
        paths: how each got there, in the same order.
    """

    U: np.ndarray
    values: np.ndarray
    paths: Paths


@dataclass(frozen=True, eq=False)
class Aim:
    """What is minimized on a surrogate: a form of `acquisition` by each of G weights, within a box.

    Args:
        fitted: the surrogate.
        form: what is minimized.
        goals: weights of each.
        box: (d, 2) bounds within the unit cube, by default the cube.
    """

    fitted: FittedSurrogate
    form: Form
    goals: Sequence[Weights]
    box: np.ndarray = None  # type: ignore[assignment] # never None once made

    def __post_init__(self) -> None:
        if self.box is None:
            object.__setattr__(self, "box", np.tile([0.0, 1.0], (self.fitted.space.n_dims, 1)))

    @float64
    def values(self, U: np.ndarray, of: np.ndarray) -> np.ndarray:
        """(n,) of points, (n, d), each by the goal whose number is given, (n,)."""
        made, size = [], FEW_POINTS if len(U) <= FEW_POINTS else self.fitted.spec.chunk
        with tallied(VALUES) as evaluated:
            evaluated.n = len(U)
            for first in range(0, len(U), size):
                rows = np.arange(first, first + size) % len(U)  # filled up, so that two programs do for any number
                own = _at(self._weights, of[rows])
                made.append(np.asarray(_of_points(self._objective, U[rows], self.fitted.state, own)))
        return np.concatenate(made)[: len(U)]

    def descend(self, optimizer: LocalOptimizer, U: np.ndarray, of: np.ndarray, bounds: Any = None) -> Paths:
        """Paths from starts, (n, d), each by the goal whose number is given."""
        own = _at(self._weights, of)
        return follow(optimizer, self._objective, U, self.fitted.state, own, self.box if bounds is None else bounds)

    @property
    def _objective(self) -> Objective:
        made: Objective = acquisition(self.form, self.fitted.spec.traced)
        return made

    @property
    def _weights(self) -> Weights:
        return Weights(*(np.array(column, dtype=float) for column in zip(*self.goals, strict=True)))


def descend(aim: Aim, optimizer: LocalOptimizer, starts: np.ndarray, others: np.ndarray, seed: int) -> list[Ends]:
    """Follows all starts of all goals in one program, and brings where they end to valid designs.

    Args:
        aim: what is minimized.
        optimizer: by which each start is followed.
        starts: (G, S, d).
        others: (m, d) points towards which an end that does not meet the constraints is drawn.
        seed: of what is tried around the ends.
    """
    space = aim.fitted.space
    n_goals, n_starts, d = starts.shape
    of = np.repeat(np.arange(n_goals), n_starts)
    paths = aim.descend(optimizer, starts.reshape(-1, d), of)
    U, values = paths.U, paths.values
    if not is_plain(space):
        U = drawn_into(space, valid(space, U), others)
        values = aim.values(U, of)
        top = np.concatenate([goal * n_starts + _first(U[of == goal], values[of == goal]) for goal in range(n_goals)])

        def descended(points: np.ndarray, rows: np.ndarray, bounds: np.ndarray) -> np.ndarray:
            return np.asarray(aim.descend(optimizer, points, of[top[rows]], bounds).U)

        U[top] = polish(space, U[top], lambda at, rows: aim.values(at, of[top[rows]]), descended, aim.box, seed)
        values = np.where(meets(space, U), aim.values(U, of), np.inf)
        if not np.isfinite(values).any():  # what is nearest to meeting them is told
            U[::n_starts] = others[np.argmin(space.violation(space.decode(others)))]
    made = []
    for goal in range(n_goals):
        mine = np.flatnonzero(of == goal)
        mine = mine[np.argsort(values[mine], kind="stable")]
        made.append(Ends(U[mine], values[mine], _at(paths, mine)))
    return made


def _first(U: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Places of the best of the points, (n, d), each once."""
    order = np.argsort(values, kind="stable")
    once = np.sort(np.unique(U[order], axis=0, return_index=True)[1])
    return np.asarray(order[once[:N_POLISHED]])


def _at(tree: Any, rows: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


@partial(jax.jit, static_argnums=0)
def _of_points(objective: Objective, U: Array, shared: Any, own: Any) -> Array:
    return jax.vmap(objective, in_axes=(0, None, 0))(U, shared, own)
