"""Pictures of what was evaluated: how values are spread, against each variable, and in their order."""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from surrogate_core.dataset import Dataset
from tasks.pictures.drawing import BLUE, GREEN, GREY, PANELS, RED

MAGNITUDE = 20.0  # positive values that span more are drawn on a logarithmic scale


def histogram(rows: Dataset, sign: float) -> Figure:
    """How the values that were measured are spread, and how many rows failed."""
    y = sign * rows.ok.y
    figure = Figure(figsize=(6.5, 3.2))
    axes = figure.subplots()
    edges = np.histogram_bin_edges(y, bins=int(np.clip(np.sqrt(len(y)) * 1.5, 5, 40)))
    if _spans_magnitudes(y):
        edges = np.geomspace(y.min(), y.max(), len(edges))
        axes.set_xscale("log")
    axes.hist(y, edges.tolist(), color=BLUE, edgecolor="white", lw=0.5)
    best = float(sign * rows.y[rows.best_index])
    axes.axvline(best, color=RED, lw=1.2, label=f"best sample {best:.4g}")
    axes.set(xlabel="objective", ylabel="samples")
    n_failed = int((rows.status == "failed").sum())
    axes.set_title(f"{len(y)} measured, {n_failed} failed", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return figure


def against_variables(parts: Mapping[str, Dataset], sign: float) -> Figure:
    """The objective against each variable, a panel each; failures are crosses at the lower edge.

    Args:
        parts: what was evaluated, by name, in its order; all of one space.
        sign: by which a value is multiplied to be in the user's direction.
    """
    space = next(iter(parts.values())).space
    config: list[tuple[str, dict[str, Any]]] = space.to_config()["variables"][:PANELS]
    columns = min(4, len(config))
    rows = -(-len(config) // columns)
    figure = Figure(figsize=(2.6 * columns + 0.6, 2.3 * rows + 0.4))
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for i, (axes, variable) in enumerate(zip_longest(grid.flat, config)):
        if variable is None:
            axes.remove()
            continue
        name, about = variable
        for (part, data), color in zip(parts.items(), _PARTS, strict=False):
            axes.plot(data.ok.X[:, i], sign * data.ok.y, "o", ms=3, color=color, alpha=0.75, label=part, mew=0)
            _crosses(axes, data.X[data.status == "failed", i])
        axes.set_xlabel(name)
        if about.get("log"):
            axes.set_xscale("log")
        if choices := about.get("choices"):  # a column of their indices
            axes.set_xticks(range(len(choices)), [str(choice) for choice in choices])
    for axes in grid[:, 0]:
        axes.set_ylabel("objective")
    _scale(grid[0, 0], parts, sign)
    _legend(figure)
    figure.subplots_adjust(hspace=0.45, wspace=0.08)
    return figure


def history(parts: Mapping[str, Dataset], sign: float) -> Figure:
    """Every evaluation in its order and the best so far; arguments as of `against_variables`."""
    y = np.concatenate([np.where(data.status == "ok", data.y, np.nan) for data in parts.values()])
    figure = Figure(figsize=(6.5, 3.9))
    axes = figure.subplots()
    first = 1
    for (part, data), color in zip(parts.items(), _PARTS, strict=False):
        number = np.arange(first, first + data.n_samples)
        ok = data.status == "ok"
        axes.plot(number[ok], sign * data.y[ok], "o", ms=3.5, mew=0, color=color, label=part)
        _crosses(axes, number[data.status == "failed"])
        first += data.n_samples
    best = np.fmin.accumulate(y)  # NaN until the first success
    axes.step(np.arange(1, first), sign * best, where="post", color="black", lw=1.2, label="best so far")
    axes.set(xlabel="evaluation", ylabel="objective")
    _scale(axes, parts, sign)
    _legend(figure)
    return figure


_PARTS = (GREY, BLUE, GREEN)


def _crosses(axes: Axes, where: np.ndarray) -> None:
    """Failures, which have no value to be drawn at: at the lower edge."""
    if len(where):
        at_edge = axes.get_xaxis_transform()
        axes.plot(where, np.full(len(where), 0.02), "x", ms=5, color=RED, transform=at_edge, label="failed")


def _scale(axes: Axes, parts: Mapping[str, Dataset], sign: float) -> None:
    y = sign * np.concatenate([data.ok.y for data in parts.values()])
    if not _spans_magnitudes(y):
        return
    axes.set_yscale("log")
    few = y.max() / y.min() < 1e3
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _spans_magnitudes(y: np.ndarray) -> bool:
    return bool(y.min() > 0 and y.max() / y.min() > MAGNITUDE)


def _legend(figure: Figure) -> None:
    """Above the figure, each label once, whatever panels it is in."""
    told = [axes.get_legend_handles_labels() for axes in figure.axes]
    lines = {label: line for panel in told for line, label in zip(*panel, strict=True)}
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="lower center",
        bbox_to_anchor=(0.5, 0.89),
        ncols=5,
        frameon=False,
        fontsize=8,
    )
