"""From where a gradient led to a design that is valid: whole steps, one of the choices, known constraints met.

The relaxed end is brought to the nearest valid point, then its neighbours in the discrete variables are tried, each
with the continuous ones followed down the gradient again; with constraints, also points around it, ever nearer. Only
points that meet all constraints are taken, so what is returned meets them exactly where any point known does.

Notation: P: points; K: neighbours of each; U: (P, d) in the unit cube.
"""

from collections.abc import Callable

import numpy as np

from surrogate_core.space import Categorical, SearchSpace

MAX_ROUNDS = 30  # with constraints; else until nothing is better
N_AROUND = 128  # points tried around each in a round, where there are constraints
WIDEST, NARROWER = 0.1, 0.7  # how far from it, in unit-cube units, and by which part less after each round
BISECTIONS = 30
LEAST_GAIN = 1e-12  # of the value, relative to its size or to 1

Values = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of points, (n, d), each by the weights of the given row, (n,) integers: the values, (n,)."""
Follow = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Ends, (n, d), of starts by the weights of the given rows, within bounds (n, d, 2)."""


def is_plain(space: SearchSpace) -> bool:
    """Whether every point of the unit cube is a valid design as it is."""
    return not space.constraints and not _is_discrete(space).any()


def polish(space: SearchSpace, U: np.ndarray, values: Values, follow: Follow, box: np.ndarray, seed: int) -> np.ndarray:
    """Points near those given, better or the same; (P, d).

    Args:
        space: of the points.
        U: (P, d) valid points where descents have ended.
        values: what is minimized.
        follow: descents of it.
        box: (d, 2) bounds.
        seed: of the points tried around.
    """
    generator, discrete = np.random.default_rng(seed), _is_discrete(space)
    goes_around = bool(space.constraints) and not discrete.all()
    U, best = U.copy(), np.where(meets(space, U), values(U, np.arange(len(U))), np.inf)
    on, turn = np.arange(len(U)), 0
    while len(on) and (turn < MAX_ROUNDS or not goes_around):
        tried = _neighbours(space, U[on])
        if goes_around:
            tried = np.concatenate([tried, _around(U[on], tried, discrete, WIDEST * NARROWER**turn, generator)], axis=1)
        n = tried.shape[1]
        if n == 0:
            break
        points, of = valid(space, np.clip(tried.reshape(-1, U.shape[1]), *box.T)), np.repeat(on, n)
        if not discrete.all() and not space.constraints:
            points = follow(points, of, np.where(discrete[:, None], points[:, :, None], box))
        found = values(points, of)
        better = found < best[of] - LEAST_GAIN * np.maximum(1, np.abs(found))
        better[better] = meets(space, points[better])  # which may be dear, and is asked for no other
        found = np.where(better, found, np.inf).reshape(len(on), n)
        at, least = np.argmin(found, axis=1), found.min(axis=1)
        moved = np.isfinite(least)
        best[on[moved]] = least[moved]
        U[on[moved]] = points.reshape(len(on), n, -1)[moved, at[moved]]
        on, turn = on if goes_around else on[moved], turn + 1
    return U


def _around(
    U: np.ndarray, neighbours: np.ndarray, discrete: np.ndarray, width: float, generator: np.random.Generator
) -> np.ndarray:
    """(P, N_AROUND, d) points: of half of them also a step is taken, which may meet the constraints along with them."""
    P, K, d = neighbours.shape
    step = generator.integers(0, K, N_AROUND) if K else np.zeros(0, int)
    middle = np.repeat(U[:, None], N_AROUND, axis=1)
    middle[:, : N_AROUND // 2] = neighbours[:, step][:, : N_AROUND // 2] if K else middle[:, : N_AROUND // 2]
    return middle + np.where(discrete, 0.0, width * generator.standard_normal((P, N_AROUND, d)))


def valid(space: SearchSpace, U: np.ndarray) -> np.ndarray:
    """The nearest points on the steps and choices of a space, (n, d); constraints aside."""
    return np.where(_is_discrete(space), space.encode(space.decode(U)), U)


def drawn_into(space: SearchSpace, points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Unit-cube points, (n, d), each moved towards the nearest of the others that meets the constraints until it does.

    Known constraints may be any function, so the boundary between the two is found by bisection. Where none of the
    others, (m, d), meets them, the points stay.
    """
    if not space.constraints:
        return points
    inside = others[meets(space, others)]
    moved, out = points.copy(), np.flatnonzero(~meets(space, points))
    if len(inside) == 0 or len(out) == 0:
        return moved
    apart = np.linalg.norm(points[out, None] - inside[None], axis=-1)
    anchors = inside[np.argmin(apart, axis=1)]
    low, high = np.zeros(len(out)), np.ones(len(out))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        met = meets(space, anchors + middle[:, None] * (points[out] - anchors))
        low, high = np.where(met, middle, low), np.where(met, high, middle)
    moved[out] = valid(space, anchors + low[:, None] * (points[out] - anchors))
    return moved


def meets(space: SearchSpace, U: np.ndarray) -> np.ndarray:
    """Which points, (n, d), meet all constraints as the valid designs that they stand for."""
    return space.is_feasible(space.decode(U))


def _neighbours(space: SearchSpace, U: np.ndarray) -> np.ndarray:
    """(P, K, d): one step up or down in each variable with steps, each other choice in one with choices."""
    X, made = space.decode(U), []
    for j, variable in enumerate(space.variables):
        if isinstance(variable, Categorical):
            m = len(variable.choices)
            columns = [(X[:, j] + k) % m for k in range(1, m)]
        elif variable.step is not None:
            columns = [np.clip(X[:, j] + by, variable.low, variable.high) for by in (-variable.step, variable.step)]
        else:
            continue
        for column in columns:
            one = U.copy()
            one[:, j] = variable.encode(column)
            made.append(valid(space, one))
    return np.stack(made, axis=1) if made else np.empty((len(U), 0, U.shape[1]))


def _is_discrete(space: SearchSpace) -> np.ndarray:
    """(d,): which variables have steps or choices."""
    return np.isfinite([variable.n_values for variable in space.variables])
