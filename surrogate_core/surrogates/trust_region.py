"""Minimization of a smooth function within a box: BFGS in a trust region, from a curvature that the caller can tell.

A model of the loss, of its slope and of a curvature that each evaluation corrects, is minimized in a ball around the
best point; the ball grows where the model has held and shrinks where it has not. Begun with a good curvature it takes
a third of the evaluations of a method that begins with none, which is what counts where each factors a matrix. Several
searches go on side by side, so that their points are evaluated together.

Notation: X: (S, p) of S searches; g: (S, p) slopes; B: (S, p, p) curvatures; s: steps; y: changes of the slope.

Source: Nocedal & Wright, "Numerical Optimization" (2006), algorithms 4.1 and 4.3, and 18.2 for the damped update.
"""

from collections.abc import Callable

import numpy as np

Losses = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

RADIUS = 2.0  # of the first ball and of the largest
GOOD, BAD = 0.7, 0.1  # parts of the decrease that was foretold, above which the ball grows and below which it shrinks
SHORT = 1e-6  # a step below which rounding decides
PASSES = 10  # over what is at its bound; mostly one or two are enough
FLAT = 1e-8  # the least curvature: rounding can leave B with less
TINY = 1e-300
DAMPED = 0.2  # of B's own curvature along a step, below which a measured one is mixed with it


def descend(
    losses: Losses, X: np.ndarray, B: np.ndarray, low: np.ndarray, high: np.ndarray, steps: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where searches end, (S, p), and the losses there, (S,).

    Args:
        losses: of points, with their slopes; an infinite loss, of slope 0, is a wall that a search keeps away from.
        X: where the searches begin.
        B: positive definite.
        low, high: (p,) of the box.
        steps: at most so many evaluations after the first, a search.
        tolerance: what a step must promise to gain.
    """
    X, B, on = X.copy(), B.copy(), np.arange(len(X))
    values, g = losses(X)
    radius = np.full(len(X), RADIUS)
    for _ in range(steps):
        s, promised = _in_box(g[on], B[on], radius[on], low - X[on], high - X[on])
        length = np.linalg.norm(s, axis=1)
        goes_on = (promised > tolerance) & (length > SHORT)
        if not goes_on.any():
            break
        on, s, length = on[goes_on], s[goes_on], length[goes_on]
        there = np.clip(X[on] + s, low, high)
        new, slopes = losses(there)
        gain, foretold = values[on] - new, -_model(g[on], B[on], s)
        kept = np.where(foretold > 0, gain / np.where(foretold > 0, foretold, 1.0), np.sign(gain))
        larger = np.where((kept > GOOD) & (length > 0.8 * radius[on]), 2 * radius[on], radius[on])
        radius[on] = np.where(kept < 0, length / 4, np.where(kept < BAD, length / 2, np.minimum(larger, RADIUS)))
        seen = np.isfinite(new)
        B[on[seen]] = _learned(B[on[seen]], s[seen], (slopes - g[on])[seen])
        better = gain > 0
        X[on[better]], values[on[better]], g[on[better]] = there[better], new[better], slopes[better]
    return X, values


def _in_box(
    g: np.ndarray, B: np.ndarray, radius: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Steps within ball and box, and what they promise without: what would leave the box stays at its bound.

    Which coordinates do is found as by the primal-dual active set strategy (Hintermueller, Ito & Kunisch 2003, SIAM J.
    Optim. 13, algorithm 1).
    """
    free = ~((low >= 0) & (g >= 0) | (high <= 0) & (g <= 0))
    steepest = _steepest(np.where(free, g, 0.0), B, radius, low, high)
    s, promised = np.zeros_like(g), np.zeros(len(g))
    for turn in range(PASSES):
        others = ~(free[:, :, None] & free[:, None, :])
        slopes = np.where(free, g + _times(B, np.where(free, 0.0, s)), 0.0)
        whole, gain = _in_ball(slopes, np.where(others, np.eye(len(g.T)), B), radius)
        promised = promised if turn else gain
        s = np.where(free, np.clip(whole, low, high), s)
        left = g + _times(B, s)
        stays = np.where(free, s == whole, (s <= low) & (left >= 0) | (s >= high) & (left <= 0))
        if stays.all():
            break
        free ^= ~stays
    is_better = _model(g, B, steepest) < _model(g, B, s)
    return np.where(is_better[:, None], steepest, s), promised


def _steepest(g: np.ndarray, B: np.ndarray, radius: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Steps down the slope, which a step must not be worse than (Cauchy's point)."""
    square, bend = np.sum(g**2, axis=1), np.sum(g * _times(B, g), axis=1)
    far = np.minimum(square / np.maximum(bend, TINY), radius / np.sqrt(np.maximum(square, TINY)))
    return np.clip(-far[:, None] * g, low, high)


def _model(g: np.ndarray, B: np.ndarray, s: np.ndarray) -> np.ndarray:
    """(S,) the changes of the loss that are foretold."""
    return np.asarray(np.sum(s * (g + _times(B, s) / 2), axis=1))


def _in_ball(g: np.ndarray, B: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps to the models' minima within their balls, and what they promise without them."""
    curvatures, axes = np.linalg.eigh(B)
    curvatures = np.maximum(curvatures, FLAT)
    slopes = _times(axes.transpose(0, 2, 1), g)
    s = slopes / curvatures
    promised, shift = np.sum(slopes * s, axis=1) / 2, np.zeros(len(g))
    for _ in range(5):  # Newton's method on 1 / radius - 1 / |s|, which comes from below
        size = np.linalg.norm(s, axis=1)
        long = size > 1.01 * radius
        if not long.any():
            break
        bend = np.sum(s**2 / (curvatures + shift[:, None]), axis=1)
        shift += np.where(long, (size / radius - 1) * size**2 / np.where(long, bend, 1.0), 0.0)
        s = slopes / (curvatures + shift[:, None])
    return -_times(axes, s), promised


def _learned(B: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
    """B with the curvatures that were measured along s."""
    Bs = _times(B, s)
    old, new = (np.sum(s * one, axis=1)[:, None] for one in (Bs, y))
    part = np.where(new < DAMPED * old, (1 - DAMPED) * old / np.where(new < old, old - new, 1.0), 1.0)
    y = part * y + (1 - part) * Bs
    new = np.sum(s * y, axis=1)[:, None]
    return B - Bs[:, :, None] * (Bs / old)[:, None] + y[:, :, None] * (y / new)[:, None]


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (matrices @ vectors[:, :, None])[:, :, 0]
