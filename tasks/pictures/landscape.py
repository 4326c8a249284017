"""Pictures of what a surrogate predicts around a design: slices along variables, planes of two, and its gradient."""

from itertools import combinations, zip_longest
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from surrogate_core.dataset import Dataset
from surrogate_core.space import Categorical, Integer, SearchSpace, Variable
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.validation.sensitivity import relevances
from tasks.pictures.drawing import BLUE, PANELS, RED

N_ALONG, N_ACROSS, N_ARROWS = 121, 41, 17  # points of a slice, of a plane's side, and arrows of a side
NEAR = 0.25  # unit-cube distance from a slice at which a row is drawn faintly
N_PLANES = 3  # pairs of the variables that matter most


def slices(fitted: FittedSurrogate, params: dict[str, Any], rows: Dataset, sign: float) -> Figure:
    """The prediction with its 95 % interval along each variable through a design, the others held there.

    Rows of the data are the darker the nearer they are to the slice.

    Args:
        fitted: the surrogate.
        params: the design.
        rows: what was measured.
        sign: by which a value is multiplied to be in the user's direction.
    """
    space = fitted.space
    x, n = space.point(params), min(space.n_dims, PANELS)
    shown = np.sort(np.argsort(-relevances(fitted), kind="stable")[:n])
    columns = min(4, n)
    figure = Figure(figsize=(2.7 * columns + 0.6, 2.4 * -(-n // columns) + 0.4))
    grid = figure.subplots(-(-n // columns), columns, sharey=True, squeeze=False)
    ok, seen, edges = rows.ok, [], list[float]()
    for axes, j in zip_longest(grid.flat, shown):
        if j is None:
            axes.remove()
            continue
        variable, points = space.variables[j], _along(space, x, j)
        mean, (low, high) = sign * fitted.predict(points), np.sort(sign * np.array(fitted.interval(points)), axis=0)
        at = points[:, j]
        if isinstance(variable, Categorical):
            axes.errorbar(at, mean, np.maximum([mean - low, high - mean], 0), fmt="o", ms=4, color=BLUE, lw=1)
        else:
            axes.fill_between(at, low, high, color=BLUE, alpha=0.18, lw=0)
            axes.plot(at, mean, color=BLUE, lw=1.4)
        near = _nearness(space, ok.X, x, j)
        axes.scatter(ok.X[:, j], sign * ok.y, s=9, color="black", alpha=near, lw=0)
        axes.axvline(x[j], color=RED, lw=1)
        _axis(axes, space, j, "x")
        seen.append(np.concatenate([mean, sign * ok.y[near > 0.5]]))
        edges += [low.min(), high.max()]
    spread = np.concatenate(seen)
    height = float(np.ptp(spread)) or 1.0
    least = max(min(edges), spread.min() - height / 2)  # intervals may be far wider
    most = min(max(edges), spread.max() + height / 2)
    margin = 0.04 * height
    grid[0, 0].set_ylim(min(least, spread.min()) - margin, max(most, spread.max()) + margin)
    for axes in grid[:, 0]:
        axes.set_ylabel("objective")
    figure.subplots_adjust(hspace=0.5, wspace=0.08)
    return figure


def planes(fitted: FittedSurrogate, params: dict[str, Any], rows: Dataset, sign: float) -> Figure:
    """The prediction and its standard deviation over pairs of the variables that matter most, through a design.

    Arguments as of `slices`; the space has at least two variables that are not categorical.
    """
    space = fitted.space
    pairs = _pairs(fitted)
    figure = Figure(figsize=(8.6, 3.5 * len(pairs)))
    grid = figure.subplots(len(pairs), 2, squeeze=False)
    for (left, right), (i, j) in zip(grid, pairs, strict=True):
        points = _over(space, space.point(params), i, j, N_ACROSS)
        told = (sign * fitted.predict(points), fitted.uncertainty(points))
        for axes, values, colours, label in (
            (left, told[0], "viridis", "predicted"),
            (right, told[1], "magma", "± 1 sd"),
        ):
            sides = [part.reshape(N_ACROSS, N_ACROSS) for part in (points[:, i], points[:, j], values)]
            figure.colorbar(_surface(axes, sides, colours), ax=axes, label=label)
            _rows_and_design(axes, space, rows, space.point(params), i, j)
            _axis(axes, space, i, "x")
            _axis(axes, space, j, "y")
    figure.tight_layout()
    return figure


def gradient_field(fitted: FittedSurrogate, params: dict[str, Any], rows: Dataset, sign: float) -> Figure:
    """Where the gradient of the prediction leads, of a space of two continuous variables; arguments as of `slices`."""
    space = fitted.space
    figure = Figure(figsize=(6.4, 5.2))
    axes = figure.subplots()
    points = _over(space, space.point(params), 0, 1, 2 * N_ACROSS)
    values = sign * fitted.predict(points)
    sides = [part.reshape(2 * N_ACROSS, 2 * N_ACROSS) for part in (*points.T, values)]
    figure.colorbar(_surface(axes, sides, "viridis"), ax=axes, label="predicted")
    at = _over(space, space.point(params), 0, 1, N_ARROWS)
    down = -fitted.gradient(at) / space.slope(at)  # in unit-cube units: what the search follows
    length = np.linalg.norm(down, axis=1, keepdims=True)
    arrows = down / np.maximum(length, np.finfo(float).tiny) * (length / (length.max() or 1.0)) ** 0.4
    axes.quiver(*at.T, *arrows.T, color="white", alpha=0.85, scale=1.3 * N_ARROWS, width=0.003)
    _rows_and_design(axes, space, rows, space.point(params), 0, 1)
    for j, which in enumerate(("x", "y")):
        _axis(axes, space, j, which)
    axes.set_title("white: where the predicted gradient leads, the longer the steeper", fontsize=10)
    return figure


def _surface(axes: Axes, sides: list[np.ndarray], colours: str) -> ScalarMappable:
    """Filled contours, or of what is everywhere the same its one colour."""
    if np.ptp(sides[2]) > 0:
        return axes.contourf(*sides, 24, cmap=colours)
    return axes.pcolormesh(*sides, cmap=colours)


def _pairs(fitted: FittedSurrogate) -> list[tuple[int, int]]:
    """Of the variables that matter most, none of them categorical."""
    order = np.argsort(-relevances(fitted), kind="stable")
    usable = [int(j) for j in order if not isinstance(fitted.space.variables[j], Categorical)]
    return list(combinations(sorted(usable[:3]), 2))[:N_PLANES]


def _along(space: SearchSpace, x: np.ndarray, j: int) -> np.ndarray:
    """Points through x along one variable: each value once, in their order."""
    values = _values(space.variables[j], N_ALONG)
    points = np.tile(x, (len(values), 1))
    points[:, j] = values
    return points


def _over(space: SearchSpace, x: np.ndarray, i: int, j: int, n: int) -> np.ndarray:
    """(n * n, d) points through x over two variables, between the values that steps allow too."""
    sides = [_between(space.variables[k], n) for k in (i, j)]
    points = np.tile(x, (n * n, 1))
    points[:, i], points[:, j] = (side.ravel() for side in np.meshgrid(*sides))
    return points


def _values(variable: Variable, n: int) -> np.ndarray:
    return np.unique(variable.decode(np.linspace(0, 1, n if np.isinf(variable.n_values) else 1001)))


def _between(variable: Variable, n: int) -> np.ndarray:
    low, high = variable.low, variable.high
    return np.geomspace(low, high, n) if getattr(variable, "log", False) else np.linspace(low, high, n)


def _rows_and_design(axes: Axes, space: SearchSpace, rows: Dataset, x: np.ndarray, i: int, j: int) -> None:
    X = rows.ok.X
    near: Any = _nearness(space, X, x, i, j)  # one a point, of which matplotlib's types do not know
    axes.scatter(X[:, i], X[:, j], s=9, color="white", edgecolors="black", lw=0.4, alpha=near, clip_on=False)
    axes.plot(x[i], x[j], "*", ms=13, color=RED, mec="white", mew=0.8, clip_on=False, zorder=5)


def _nearness(space: SearchSpace, X: np.ndarray, x: np.ndarray, *shown: int) -> np.ndarray:
    """(n,) from 1, of rows that differ from x in what is shown alone, to 0."""
    off = np.delete(space.encode(X) - space.encode(x), shown, axis=1)
    distance = np.linalg.norm(off, axis=1) / np.sqrt(max(off.shape[1], 1))
    return np.asarray(np.exp(-((distance / NEAR) ** 2)))


def _axis(axes: Axes, space: SearchSpace, j: int, which: str) -> None:
    variable, axis = space.variables[j], getattr(axes, f"{which}axis")
    axis.set_label_text(space.names[j])
    if isinstance(variable, Integer) and not variable.log:
        axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if getattr(variable, "log", False):
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    if isinstance(variable, Categorical):
        axis.set_ticks(range(len(variable.choices)), [str(choice) for choice in variable.choices])
