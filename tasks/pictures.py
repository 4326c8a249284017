"""Pictures of reports: what people would rather look at than read. Drawn without a display or global state."""

import io
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from surrogate_core.dataset import Dataset
from surrogate_core.validation.gates import Gate

BLUE, RED, GREY, GREEN = "#1f6fb4", "#c8442c", "#8a8a8a", "#2e7d32"
PANELS = 16  # variables that are drawn: more can be neither read nor drawn in a moment
MAGNITUDE = 20.0  # positive values that span more are drawn on a logarithmic scale


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=120, bbox_inches="tight")
    return sink.getvalue()


def svg(figure: Figure) -> bytes:
    """A figure as an SVG file, equal for equal figures."""
    sink = io.BytesIO()
    with rc_context({"svg.hashsalt": "surrogate"}):
        figure.savefig(sink, format="svg", bbox_inches="tight", metadata={"Date": None})
    return sink.getvalue()


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


def parity(validation: dict[str, Any]) -> Figure:
    """Held-out predictions with their 95 % intervals against what was observed."""
    y, predicted, lower, upper = (
        np.array([row[name] for row in validation["held_out"]]) for name in ("y", "predicted", "lower", "upper")
    )
    inside = (lower <= y) & (y <= upper)
    figure = Figure(figsize=(5.5, 5))
    axes = figure.subplots()
    for members, color, label in ((inside, BLUE, "95 % interval holds"), (~inside, RED, "does not")):
        spread = np.maximum([(predicted - lower)[members], (upper - predicted)[members]], 0)
        axes.errorbar(y[members], predicted[members], spread, fmt="o", ms=4, lw=1, color=color, label=label)
    ends = [min(y.min(), predicted.min()), max(y.max(), predicted.max())]
    axes.plot(ends, ends, color=GREY, lw=1, zorder=0)
    verdicts = [Gate(**gate) for gate in validation["gates"]]
    metrics = validation["metrics"]
    axes.set(xlabel="observed", ylabel="predicted by a fit that had not seen the row")
    axes.set_title(
        f"R² {metrics['r2']:.3f}, 95 % coverage {metrics['coverage_95']:.0%}\n"
        + ("; ".join(f"{'passed' if gate.passed else 'FAILED'} {gate}" for gate in verdicts) or "no gates"),
        fontsize=10,
    )
    axes.legend(frameon=False)
    return figure


def rounds(optimum: dict[str, Any]) -> Figure:
    """What each round's prediction promised, and what was measured."""
    table = optimum["rounds"]
    number = np.array([row["round"] for row in table])
    promised, lower, upper = (np.array([row[name] for row in table]) for name in ("promised", "lower", "upper"))
    figure = Figure(figsize=(6.5, 4.2))
    axes = figure.subplots()
    axes.axhline(optimum["best_sample"]["measured"], color=GREY, lw=1, ls="--", label="best sample")
    spread = np.maximum([promised - lower, upper - promised], 0)
    axes.errorbar(number - 0.08, promised, spread, fmt="o", color=BLUE, capsize=3, label="promised, with 95 % interval")
    measured = [(row["round"], row["measured"]) for row in table if row["measured"] is not None]
    if measured:
        axes.plot(*zip(*measured, strict=True), "D", color=RED, label="measured there")
    evaluated = [row for row in optimum["evaluations"] if row["objective"] is not None]
    others = [(row["proposed_in"] + 0.08, row["objective"]) for row in evaluated]
    if others:
        axes.plot(*zip(*others, strict=True), ".", color=GREY, ms=4, label="all evaluations of the round")
    axes.step(number, [row["best_so_far"] for row in table], where="mid", color=RED, lw=1, label="best so far")
    axes.set(xlabel="round", ylabel="objective", xticks=number, xlim=(number[0] - 0.6, number[-1] + 0.6))
    axes.legend(frameon=False, fontsize=8)
    return figure


def trials(tuning: dict[str, Any]) -> Figure:
    """Cross-validated score of every spec that was tried."""
    tried = [(row["number"] + 1, row["nlpd"]) for row in tuning["trials"] if row["nlpd"] is not None]
    figure = Figure(figsize=(6.5, 3.8))
    axes = figure.subplots()
    number, nlpd = (np.array(column) for column in zip(*tried, strict=True))
    axes.plot(number, nlpd, "o", color=BLUE, ms=4, label="specs")
    axes.step(number, np.minimum.accumulate(nlpd), where="post", color=RED, lw=1, label="best so far")
    axes.axhline(tuning["champion"]["metrics"]["nlpd"], color=GREY, lw=1, ls="--", label="champion")
    axes.set(xlabel="spec", ylabel="negative log predictive density (less is better)")
    verdict = "better than" if tuning["challenger_is_better"] else "not better than"
    advantage = tuning["advantage"]
    axes.set_title(
        f"the challenger is {verdict} the champion: {advantage['mean_log_density']:+.2f} "
        f"± {advantage['standard_error']:.2f} in log density",
        fontsize=10,
    )
    axes.legend(frameon=False)
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
