"""Pictures of a search: how its starts went, where they ended, and what came of designs that were promised."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from surrogate_core.space import Categorical, SearchSpace
from surrogate_core.trust import SIDE
from tasks.pictures.drawing import BLUE, GREEN, GREY, PANELS, RED

OFF = 6.0  # standard deviations at which an error that is greater is drawn


def promises(table: Sequence[dict[str, Any]], trust: dict[str, Any]) -> Figure:
    """Promised designs against what was measured, and the errors in their order.

    Args:
        table: of proposals, one of them measured at least.
        trust: the report.
    """
    rows = [row for row in table if row["standardized_error"] is not None]
    names = ("predicted", "predicted_lower", "predicted_upper", "objective", "standardized_error")
    predicted, lower, upper, measured, errors = (np.array([row[name] for row in rows]) for name in names)
    kept = np.abs(errors) <= SIDE
    figure = Figure(figsize=(9.6, 4.2))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    number = np.arange(1, len(rows) + 1)
    for members, color, label in ((kept, BLUE, "kept"), (~kept, RED, "not kept")):
        if not members.any():
            continue
        spread = np.maximum([(predicted - lower)[members], (upper - predicted)[members]], 0)
        left.errorbar(predicted[members], measured[members], xerr=spread, fmt="o", ms=4, lw=0.8, color=color)
        right.plot(number[members], np.clip(errors[members], -OFF, OFF), "o", ms=4, color=color, label=label)
    ends = [min(predicted.min(), measured.min()), max(predicted.max(), measured.max())]
    left.plot(ends, ends, color=GREY, lw=1, zorder=0)
    height = ends[1] - ends[0] or 1.0
    edges = max(lower.min(), ends[0] - height), min(upper.max(), ends[1] + height)  # intervals may be far wider
    left.set(xlabel="promised, with 95 % interval", ylabel="measured")
    left.set_xlim(min(edges[0], ends[0]) - 0.05 * height, max(edges[1], ends[1]) + 0.05 * height)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.axhspan(-SIDE, SIDE, color=GREY, alpha=0.15, lw=0)
    right.axhline(0, color=GREY, lw=1)
    right.axhline(trust["disappointment"], color=GREEN, lw=1.4, label="disappointment to be expected now")
    right.set(xlabel="design, in the order of promises", ylabel="error in standard deviations, worse is up")
    right.set_ylim(-OFF - 0.3, OFF + 0.3)
    right.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{trust['n_kept']} of {trust['n_verified']} promises were kept", fontsize=10)
    figure.tight_layout()
    return figure


def convergence(search: dict[str, Any], direction: str) -> Figure:
    """The best so far of what was minimized, for every start."""
    is_improvement = search["goal"]["name"].endswith("expected_improvement")  # which is told as it was minimized
    best = np.fmin if direction == "minimize" or is_improvement else np.fmax
    figure = Figure(figsize=(6.5, 4.0))
    axes = figure.subplots()
    for place, losses in reversed(list(enumerate(search["losses"]))):
        path = best.accumulate(np.array(losses, dtype=float))
        color, width, label = (RED, 1.8, "the one that found the best") if place == 0 else (BLUE, 0.8, None)
        axes.plot(np.arange(1, len(path) + 1), path, color=color, lw=width, label=label, alpha=1 if place == 0 else 0.6)
        axes.plot(len(path), path[-1], "o", ms=3.5, color=color)
    ended = {status: search["statuses"].count(status) for status in dict.fromkeys(search["statuses"])}
    told = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in ended.items())
    axes.set_title(f"{len(search['losses'])} start{'s' * (len(search['losses']) > 1)}: {told}", fontsize=10)
    axes.set(xlabel="evaluation of the surrogate", ylabel=f"{_minimized(search)}, best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    return figure


def optima(search: dict[str, Any], space: SearchSpace, params: dict[str, Any]) -> Figure:
    """Parallel coordinates of the distinct optima, the wider the more starts came there, and the design.

    Args:
        search: the report.
        space: of the variables, of which the first are drawn.
        params: the design that was chosen.
    """
    found = search["optima"]
    n = min(space.n_dims, PANELS)
    U = space.encode([space.point(one) for one in found["params"]])[:, :n]
    chosen, predicted = space.encode(space.point(params))[:n], np.array(found["predicted"])
    figure = Figure(figsize=(max(6.5, 0.85 * n + 2), 4.2))
    axes = figure.subplots()
    colour = ScalarMappable(Normalize(predicted.min(), predicted.max()), colormaps["viridis"])
    for u, value, n_starts in reversed(list(zip(U, predicted, found["n_starts"], strict=True))):
        width = 1 + 4 * n_starts / sum(found["n_starts"])
        axes.plot(range(n), u, "-o", color=colour.to_rgba(value), lw=width, ms=3)
    axes.plot(range(n), chosen, "--D", color=RED, lw=1.2, ms=4, label="the design")
    for j, variable in enumerate(space.variables[:n]):
        low, high = (
            (variable.choices[0], variable.choices[-1])
            if isinstance(variable, Categorical)
            else (f"{variable.low:g}", f"{variable.high:g}")
        )
        for at, text, side in ((-0.03, low, "top"), (1.03, high, "bottom")):
            axes.text(j, at, str(text), ha="center", va=side, fontsize=7, color=GREY)
        axes.axvline(j, color=GREY, lw=0.6, zorder=0)
    axes.set_xticks(range(n), space.names[:n], rotation=30 if n > 6 else 0, ha="right" if n > 6 else "center")
    axes.tick_params(axis="x", pad=12, length=0)
    axes.set(yticks=[], ylim=(-0.1, 1.1))
    figure.colorbar(colour, ax=axes, label="predicted")
    axes.set_title(f"{len(U)} distinct optima of {len(search['losses'])} starts", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1, -0.12))
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _minimized(search: dict[str, Any]) -> str:
    name: str = search["goal"]["name"]
    sign = "−" * name.endswith("expected_improvement")
    return "predicted" if name == "mean" else sign + name.replace("_", " ")
