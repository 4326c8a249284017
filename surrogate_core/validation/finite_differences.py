"""A function's gradient from a few of its values around a point, and how sure it is.

Notation: u: unit-cube coordinates, in which steps h, (d,), are given; sigma: standard deviation of a value's noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from surrogate_core.space import Categorical, Integer, SearchSpace, Variable


@dataclass(frozen=True, eq=False)
class Stencil:
    """The points whose values make differences around n centres.

    Args:
        points: (m, d) in the problem's units, no two equal, at most 2 d for each centre.
        ends: (2, n, d) which points are the lower and upper end of each difference; m where there is none.
        width: (n, d) unit-cube distance between the ends; NaN where there is no difference.
        slope: (n, d) dU/dX at the centres.
    """

    points: np.ndarray
    ends: np.ndarray
    width: np.ndarray
    slope: np.ndarray

    def combine(self, values: np.ndarray, sigma: float | np.ndarray = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Gradients and their standard errors, both (n, d) in the problem's units.

        Args:
            values: (m,) of the points; NaN where a call failed, which makes its components NaN.
            sigma: of the values, scalar or (m,).

        Raises:
            ValueError: there is not one value a point.
        """
        values = np.asarray(values, dtype=float)
        if values.shape != (len(self.points),):
            raise ValueError(f"values: expected shape ({len(self.points)},), got {values.shape}")
        low, high = np.append(values, np.nan)[self.ends]
        sigma_low, sigma_high = np.append(np.broadcast_to(sigma, values.shape), np.nan)[self.ends]
        scale = self.slope / self.width
        gradient = (high - low) * scale
        return gradient, np.where(np.isnan(gradient), np.nan, np.hypot(sigma_low, sigma_high) * scale)


def stencil(space: SearchSpace, X: np.ndarray, h: float | np.ndarray) -> Stencil:
    """Where to evaluate for central differences around valid points.

    A variable with steps moves by at least one of them. At a bound, and where a constraint is not met, a
    difference ends at the centre. There is none by a categorical variable, and none where neither end is left.

    Args:
        space: of the points.
        X: (n, d) centres in the problem's units.
        h: steps in unit-cube coordinates, in (0, 1/2], scalar or (d,).
    """
    X = np.atleast_2d(np.asarray(X, dtype=float))
    n, d = X.shape
    h = np.broadcast_to(h, d)
    sides = np.repeat(np.stack([X, X])[:, :, None, :], d, axis=2)  # (2, n, d, d): two points for each difference
    for j, variable in enumerate(space.variables):
        for side, sign in enumerate((-1, 1)):
            sides[side, :, j, j] = _moved(variable, X[:, j], sign * h[j])
    points = sides.reshape(-1, d)
    allowed = space.is_feasible(points)[:, None]
    centres = np.broadcast_to(X[None, :, None, :], sides.shape).reshape(-1, d)
    points = np.where(allowed, points, centres)
    reached = space.encode(points).reshape(2, n, d, d)
    width = np.diagonal(reached[1] - reached[0], axis1=1, axis2=2)
    used = np.broadcast_to(width > 0, (2, n, d)).reshape(-1)
    distinct, place = np.unique(points[used], axis=0, return_inverse=True)
    ends = np.full((2, n, d), len(distinct))
    ends[used.reshape(2, n, d)] = place.reshape(-1)
    return Stencil(distinct, ends, np.where(width > 0, width, np.nan), space.slope(X))


def finite_differences(
    evaluate: Callable[[np.ndarray], np.ndarray], space: SearchSpace, X: np.ndarray, h: float | np.ndarray
) -> np.ndarray:
    """Gradients at points, (n, d) in the problem's units, NaN where unknown, by one call with all rows of a stencil."""
    around = stencil(space, X, h)
    return around.combine(evaluate(around.points))[0]


def _moved(variable: Variable, x: np.ndarray, h: float) -> np.ndarray:
    """Values a step of h away, or the next of a variable with greater steps; at a bound, the bound."""
    if isinstance(variable, Categorical):
        return x
    if not variable.log:
        h = np.sign(h) * max(abs(h), 1 / variable.n_values)
    moved = variable.decode(np.clip(variable.encode(x) + h, 0.0, 1.0))
    if isinstance(variable, Integer) and variable.log:
        moved = np.where(moved == x, np.clip(x + np.sign(h), variable.low, variable.high), moved)
    return moved
