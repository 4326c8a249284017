"""Pictures of a study: its history, which parameters matter, and the values against them, one by one and together.

Rows are trials: `number`, `value` (None where there is none), `status`, and `params`, name to value, of which a trial
has those that belong to its branch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.pictures.drawing import BLUE, GREY, PANELS, RED

Row = Mapping[str, Any]
MAGNITUDE = 20.0  # positive numbers that span more are drawn on a logarithmic scale
MOST_LINES = 500  # of parallel coordinates: the best, and others spread over the rest
LONGEST = 18  # letters of a value that are told on an axis


def study_history(rows: Sequence[Row], direction: str, label: str, n_duplicates: int = 0) -> Figure:
    """Every trial in its order, and the best so far."""
    figure = Figure(figsize=(6.5, 3.8))
    axes = figure.subplots()
    for status, marker, color in (("ok", "o", BLUE), ("pruned", "v", GREY)):
        of = [row for row in rows if row["status"] == status and row["value"] is not None]
        if of:
            told = f"{len(of)} {'trials' if status == 'ok' else status}"
            numbers, values = [row["number"] + 1 for row in of], [row["value"] for row in of]
            axes.plot(numbers, values, marker, ls="", ms=3.5, mew=0, color=color, alpha=0.75, label=told)
    if failed := [row["number"] + 1 for row in rows if row["status"] == "failed"]:
        at_edge = axes.get_xaxis_transform()
        told = f"{len(failed)} failed"
        axes.plot(failed, np.full(len(failed), 0.02), "x", ms=5, color=RED, transform=at_edge, label=told)
    if ok := [row for row in rows if row["status"] == "ok"]:
        best = np.minimum if direction == "minimize" else np.maximum
        so_far = best.accumulate([row["value"] for row in ok])
        numbers = [row["number"] + 1 for row in ok]
        axes.step(numbers, so_far, where="post", color="black", lw=1.2, label=f"best so far, {so_far[-1]:.4g}")
        _scale(axes, [row["value"] for row in ok], "y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=label)
    if n_duplicates:
        axes.set_title(f"{n_duplicates} proposals had been tried and were not tried again", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return figure


def importance(found: Mapping[str, float]) -> Figure:
    """Bars of what each parameter explains by itself, the greatest first."""
    shown = dict(list(found.items())[:PANELS])
    figure = Figure(figsize=(6.5, 0.32 * len(shown) + 1.2))
    axes = figure.subplots()
    bars = axes.barh(list(shown), list(shown.values()), color=BLUE, height=0.6)
    axes.invert_yaxis()
    axes.bar_label(bars, [f"{share:.0%}" for share in shown.values()], padding=3, fontsize=8)
    axes.set(xlabel="share of the values' variance that it explains by itself (fANOVA)", xlim=(0, 1.12))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def study_slices(rows: Sequence[Row], label: str) -> Figure:
    """The values against each parameter, a panel each, later trials darker."""
    ok = [row for row in rows if row["status"] == "ok"]
    scales = _scales(ok)
    columns = min(4, len(scales))
    n_rows = -(-len(scales) // columns)
    figure = Figure(figsize=(2.7 * columns + 0.9, 2.5 * n_rows + 0.3), layout="constrained")
    grid = figure.subplots(n_rows, columns, sharey=True, squeeze=False)
    colour = ScalarMappable(Normalize(-0.4 * len(rows), max(2, len(rows))), colormaps["Blues"])  # the palest is seen
    for axes, scale in zip(grid.flat, scales, strict=False):
        of = [row for row in ok if scale.name in row["params"]]
        x = [scale.place(row["params"][scale.name]) for row in of]
        c = colour.to_rgba(np.array([row["number"] + 1 for row in of]))
        axes.scatter(x, [row["value"] for row in of], s=12, c=c, lw=0)
        axes.set_xlabel(scale.name, fontsize=9)
        if scale.is_log:
            axes.set_xscale("log")
        if scale.choices:
            told = [_short(choice) for choice in scale.choices]
            axes.set_xticks(range(len(told)), told, rotation=30 if max(map(len, told)) > 5 else 0, ha="right")
            axes.margins(x=0.15)
    for axes in list(grid.flat)[len(scales) :]:
        axes.remove()
    _scale(grid[0, 0], [row["value"] for row in ok], "y")
    for axes in grid[:, 0]:
        axes.set_ylabel(label, fontsize=9)
    return figure


def parallel_coordinates(rows: Sequence[Row], direction: str, label: str) -> Figure:
    """A line a trial through all its parameters, the better the brighter, and the best."""
    ok = [row for row in rows if row["status"] == "ok"]
    ok.sort(key=lambda row: row["value"], reverse=direction == "minimize")  # the best last, on top
    if len(ok) > MOST_LINES:
        ok = [ok[i] for i in np.linspace(0, len(ok) - 1, MOST_LINES).astype(int)]
    scales = _scales(ok)
    n = len(scales)
    figure = Figure(figsize=(max(6.5, 1.1 * n + 2), 4.4))
    axes = figure.subplots()
    rank = Normalize(0, max(1, len(ok) - 1))
    for i, row in enumerate(ok):
        there = [
            (j, scale.share(row["params"][scale.name])) for j, scale in enumerate(scales) if scale.name in row["params"]
        ]
        is_best = i == len(ok) - 1
        color = RED if is_best else colormaps["viridis"](rank(i))
        told = f"the best, {row['value']:.4g}" if is_best else None
        style: dict[str, Any] = {"lw": 2.2, "ms": 5, "zorder": 3} if is_best else {"lw": 0.7, "ms": 2, "alpha": 0.7}
        axes.plot(*zip(*there, strict=True), "-o", color=color, label=told, **style)
    for j, scale in enumerate(scales):
        axes.axvline(j, color=GREY, lw=0.6, zorder=0)
        for at, text in scale.ticks:
            side = "top" if at == 0 else "bottom" if at == 1 else "center"
            axes.text(j + 0.03, at + {"top": -0.03, "bottom": 0.03}.get(side, 0), text, va=side, fontsize=7, color=GREY)
    slanted = n > 4
    axes.set_xticks(
        range(n), [scale.name for scale in scales], rotation=25 if slanted else 0, ha="right" if slanted else "center"
    )
    axes.tick_params(axis="x", pad=12, length=0)
    axes.set(yticks=[], ylim=(-0.1, 1.1), xlim=(-0.2, n - 0.5))
    worst, best = ok[0]["value"], ok[-1]["value"]
    bar = figure.colorbar(ScalarMappable(rank, colormaps["viridis"]), ax=axes, ticks=[0, rank.vmax], pad=0.02)
    bar.set_label(f"rank of {label}")
    bar.ax.set_yticklabels([f"{worst:.3g}", f"{best:.3g}"])
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1.0))
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


@dataclass(frozen=True)
class _Scale:
    """Where the values of a parameter are on its axis.

    Args:
        name: of the parameter.
        low, high: of its numbers.
        is_log: whether they span magnitudes.
        choices: what is no number, in the order it came, as text; none where all are numbers.
    """

    name: str
    low: float
    high: float
    is_log: bool
    choices: tuple[str, ...]

    def place(self, value: Any) -> float:
        return self.choices.index(_text(value)) if self.choices else float(value)

    def share(self, value: Any) -> float:
        """From 0 to 1."""
        if self.choices:
            return self.place(value) / max(1, len(self.choices) - 1)
        low, high, x = np.log([self.low, self.high, value]) if self.is_log else (self.low, self.high, float(value))
        return 0.5 if high == low else (x - low) / (high - low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        if self.choices:
            return [(i / max(1, len(self.choices) - 1), _short(choice)) for i, choice in enumerate(self.choices)]
        return (
            [(0.0, f"{self.low:.4g}"), (1.0, f"{self.high:.4g}")]
            if self.high > self.low
            else [(0.5, f"{self.low:.4g}")]
        )


def _scales(rows: Sequence[Row]) -> list[_Scale]:
    """Of the first parameters that have more than one value."""
    found = []
    for name in dict.fromkeys(name for row in rows for name in row["params"]):
        values = [row["params"][name] for row in rows if name in row["params"]]
        if len({_text(value) for value in values}) < 2:
            continue
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            low, high = min(values), max(values)
            found.append(_Scale(name, low, high, _spans(values), ()))
        else:
            found.append(_Scale(name, 0, 1, False, tuple(sorted({_text(value) for value in values}))))
    return found[:PANELS]


def has_scales(rows: Sequence[Row]) -> bool:
    """Whether there is something to draw values against."""
    return bool(_scales([row for row in rows if row["status"] == "ok"]))


def _scale(axes: Axes, values: Sequence[float], which: str) -> None:
    if _spans(values):
        getattr(axes, f"set_{which}scale")("log")


def _spans(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > MAGNITUDE


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
