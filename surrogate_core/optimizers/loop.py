"""The loop that all optimizers share: many starts in one compiled program, each until its own criterion ends it.

Each turn evaluates one trial point a lane, of a block of lanes side by side, and hands it to the optimizer, which says
where it now is and what it wants evaluated next. A lane whose start has ended takes the next one, so no start waits
for the slowest, and the memory needed is that of a block. Very many starts are shared among threads.

Notation: S: starts; d: variables; T: turns that a start may take; u: (d,) a point of the box.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from surrogate_core.optimizers.local import Box, LocalOptimizer, Point
from surrogate_core.optimizers.status import Status
from surrogate_core.parallel import in_threads
from surrogate_core.performance.profiler import GRADIENTS, VALUES, tallied
from surrogate_core.precision import float64
from surrogate_core.surrogates.output import AnyArray

Objective = Callable[[Array, Any, Any], Array]
"""Of a point, (d,), arguments of all starts, and those of its own: the value to be minimized; pure and traceable."""

BLOCK = 32  # lanes: enough for the arithmetic to be worth its overhead, and few enough to stay in a CPU's cache
SHARE = 128  # starts for each thread, however many threads there are
MAX_POINTS = 2**22  # numbers; longer paths of points are not kept


class Paths(NamedTuple):
    """Of S starts: where each ended and how it got there.

    Args:
        U: (S, d) the best point that each met.
        values: (S,) there.
        slopes: (S,) size of the projected gradient where each ended.
        n_iterations, n_evaluations: (S,).
        status: (S,) a `Status`.
        losses, rates, accepted: (S, T) of each evaluation, NaN or False after the last: its value, what its step was
            of, and whether it was taken.
        points: (S, T, d) what was evaluated, or (S, T, 0) where that would be more than MAX_POINTS numbers.
    """

    U: AnyArray
    values: AnyArray
    slopes: AnyArray
    n_iterations: AnyArray
    n_evaluations: AnyArray
    status: AnyArray
    losses: AnyArray
    rates: AnyArray
    accepted: AnyArray
    points: AnyArray


@float64
def follow(
    optimizer: LocalOptimizer, objective: Objective, starts: Any, shared: Any = (), own: Any = (), bounds: Any = None
) -> Paths:
    """Follows a function from each start; compiled once for a function, a spec, and one or many starts.

    Args:
        optimizer: how.
        objective: of a point, `shared` and a start's row of `own`. A new function object is compiled anew.
        starts: (S, d), brought within the bounds.
        shared: a pytree of arrays.
        own: a pytree of arrays (S, ...).
        bounds: (d, 2), or (S, d, 2) of each start; by default the unit cube.

    Raises:
        ValueError: shapes or bounds do not fit.
    """
    U = np.asarray(starts, dtype=float)
    if U.ndim != 2 or U.size == 0:
        raise ValueError(f"starts: expected shape (S, d) with S, d >= 1, got {U.shape}")
    edges = np.asarray([0.0, 1.0] if bounds is None else bounds, dtype=float)
    if edges.shape[-1:] != (2,) or not (edges[..., 0] <= edges[..., 1]).all():
        raise ValueError(f"bounds: expected {U.shape[1]} pairs low <= high, got {edges.tolist()}")
    edges = np.broadcast_to(edges, (*U.shape, 2))
    size = 1 if len(U) == 1 else SHARE

    @float64
    def follow_share(places: np.ndarray) -> Paths:
        rows = np.resize(places, size)  # filled up, so that two programs do for any number
        mine = jax.tree.map(lambda leaf: leaf[rows], own)
        box = Box(edges[rows, :, 0], edges[rows, :, 1])
        paths = _follow(optimizer, objective, U[rows], np.int32(len(places)), shared, mine, box)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(places)], paths)

    with tallied(VALUES, GRADIENTS) as evaluated:
        shares = in_threads(follow_share, np.array_split(np.arange(len(U)), -(-len(U) // size)))
        paths: Paths = jax.tree.map(lambda *leaves: np.concatenate(leaves), *shares)
        evaluated.n = int(paths.n_evaluations.sum())
    return paths


class _Lane(NamedTuple):
    """One start on its way."""

    owner: Array
    box: Box
    own: Any
    trial: Array
    rate: Array
    memory: Any
    point: Point
    best: Array
    best_u: Array
    improved: Array  # the value that `patience` counts from
    since: Array
    n_iterations: Array
    n_evaluations: Array
    status: Array


@partial(jax.jit, static_argnums=(0, 1))
def _follow(
    optimizer: LocalOptimizer, objective: Objective, starts: Array, n_starts: Array, shared: Any, own: Any, box: Box
) -> Paths:
    """Of the first n_starts; the rows after them are not followed."""
    size, d = starts.shape
    n_lanes, turns = min(BLOCK, size), optimizer.max_turns
    kept = d if size * turns * d <= MAX_POINTS else 0
    take_turn = jax.vmap(partial(_turn, optimizer, jax.value_and_grad(objective), shared))

    def begin(owner: Array) -> _Lane:
        at = jnp.minimum(owner, n_starts - 1)
        within, mine = jax.tree.map(lambda leaf: leaf[at], (box, own))
        u = within.clip(starts[at])
        no_value = jnp.full((), jnp.inf)
        nowhere = Point(u, no_value, jnp.zeros(d))
        running = jnp.where(owner < n_starts, Status.RUNNING, Status.CONVERGED).astype(jnp.int32)
        return _Lane(
            owner=owner,
            box=within,
            own=mine,
            trial=u,
            rate=jnp.full((), jnp.nan),
            memory=optimizer.begin(u),
            point=nowhere,
            best=no_value,
            best_u=u,
            improved=no_value,
            since=jnp.int32(0),
            n_iterations=jnp.int32(0),
            n_evaluations=jnp.int32(0),
            status=running,
        )

    def any_running(carry: tuple[_Lane, Array, Paths]) -> Array:
        return jnp.any(carry[0].owner < n_starts)

    def turn(carry: tuple[_Lane, Array, Paths]) -> tuple[_Lane, Array, Paths]:
        lanes, n_begun, paths = carry
        trial, rate = lanes.trial, lanes.rate
        lanes, loss, accepted = take_turn(lanes)
        owner, at = lanes.owner, lanes.n_evaluations - 1
        slopes = jax.vmap(Box.slope)(lanes.box, lanes.point)
        ended = {
            "U": lanes.best_u,
            "values": lanes.best,
            "slopes": slopes,
            "n_iterations": lanes.n_iterations,
            "n_evaluations": lanes.n_evaluations,
            "status": lanes.status,
        }
        of_turn = {"losses": loss, "rates": rate, "accepted": accepted, "points": trial[:, :kept]}
        paths = paths._replace(
            **{name: getattr(paths, name).at[owner].set(value, mode="drop") for name, value in ended.items()},
            **{name: getattr(paths, name).at[owner, at].set(value, mode="drop") for name, value in of_turn.items()},
        )
        is_free = lanes.status != Status.RUNNING
        fresh = jax.vmap(begin)(jnp.where(is_free, jnp.minimum(n_begun + jnp.cumsum(is_free) - 1, n_starts), n_starts))
        lanes = jax.tree.map(partial(_where, is_free), fresh, lanes)
        return lanes, jnp.minimum(n_begun + is_free.sum(dtype=jnp.int32), n_starts), paths

    blank = Paths(
        U=jnp.full((size, d), jnp.nan),
        values=jnp.full(size, jnp.inf),
        slopes=jnp.full(size, jnp.nan),
        n_iterations=jnp.zeros(size, jnp.int32),
        n_evaluations=jnp.zeros(size, jnp.int32),
        status=jnp.zeros(size, jnp.int32),
        losses=jnp.full((size, turns), jnp.nan),
        rates=jnp.full((size, turns), jnp.nan),
        accepted=jnp.zeros((size, turns), bool),
        points=jnp.full((size, turns, kept), jnp.nan),
    )
    lanes = jax.vmap(begin)(jnp.minimum(jnp.arange(n_lanes), n_starts))
    return jax.lax.while_loop(any_running, turn, (lanes, jnp.minimum(n_lanes, n_starts), blank))[2]


def _turn(
    optimizer: LocalOptimizer,
    value_and_gradient: Callable[[Array, Any, Any], tuple[Array, Array]],
    shared: Any,
    lane: _Lane,
) -> tuple[_Lane, Array, Array]:
    value, gradient = value_and_gradient(lane.trial, shared, lane.own)
    is_finite = jnp.isfinite(value) & jnp.isfinite(gradient).all()
    seen = Point(lane.trial, jnp.where(is_finite, value, jnp.inf), jnp.where(is_finite, gradient, 0.0))
    point, trial, memory, rate, accepted, status = optimizer.advance(lane.memory, lane.point, seen, lane.box)
    n_evaluations = lane.n_evaluations + 1
    n_iterations = lane.n_iterations + (accepted & (lane.n_evaluations > 0))
    better = seen.value < lane.best
    improves = accepted & (lane.improved - seen.value > optimizer.min_improvement)
    since = jnp.where(improves, 0, lane.since + accepted)
    ends = [
        ((lane.n_evaluations == 0) & ~is_finite, Status.NOT_FINITE),
        (accepted & is_finite & (lane.box.slope(point) <= optimizer.tolerance), Status.CONVERGED),
        (status != Status.RUNNING, status),
        (since >= (optimizer.patience or np.iinfo(np.int32).max), Status.NO_IMPROVEMENT),
        ((n_iterations >= optimizer.max_iterations) | (n_evaluations >= optimizer.max_turns), Status.MAX_ITERATIONS),
    ]
    which, why = zip(*ends, strict=True)
    status = jnp.select(list(which), list(why), Status.RUNNING).astype(jnp.int32)
    best, best_u = jnp.where(better, seen.value, lane.best), jnp.where(better, seen.u, lane.best_u)
    improved = jnp.where(improves, seen.value, lane.improved)
    counts = (since.astype(jnp.int32), n_iterations.astype(jnp.int32), n_evaluations)
    lane = _Lane(
        lane.owner,
        lane.box,
        lane.own,
        lane.box.clip(trial),
        rate,
        memory,
        point,
        best,
        best_u,
        improved,
        *counts,
        status,
    )
    return lane, jnp.where(is_finite, value, jnp.nan), accepted


def _where(which: Array, a: Array, b: Array) -> Array:
    return jnp.where(which.reshape(which.shape + (1,) * (b.ndim - which.ndim)), a, b)
