"""Pictures of the validation: how far the surrogate, its intervals and its gradient can be trusted, and where."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from surrogate_core.validation.gates import Gate
from surrogate_core.validation.metrics import calibration_curve
from tasks.pictures.drawing import BLUE, GREEN, GREY, PANELS, RED

LOOK_AHEAD = 2  # times as many rows, up to which the learning curve's law is drawn
N_COLOURS = 8  # variables that a colour each can tell apart
OFF = 10.0  # standard deviations at which an error that is greater is drawn


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
    verdicts = [Gate(**gate) for gate in validation.get("gates", [])]
    metrics = validation["metrics"]
    axes.set(xlabel="observed", ylabel="predicted by a fit that had not seen the row")
    axes.set_title(
        f"R² {metrics['r2']:.3f}, 95 % coverage {metrics['coverage_95']:.0%}\n"
        + ("; ".join(f"{'passed' if gate.passed else 'FAILED'} {gate}" for gate in verdicts) or "no gates"),
        fontsize=10,
    )
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def calibration(validation: dict[str, Any]) -> Figure:
    """How many held-out values lay below each predicted quantile: by folds, recalibrated, and left out one by one."""
    rows, metrics, learned = validation["held_out"], validation["metrics"], validation["recalibration"]
    named = {"cumulative": (BLUE, "as fitted"), "recalibrated": (RED, f"stretched by {learned['factor']:.3g}")}
    if "left_out" in rows[0]:
        named["left_out"] = (GREEN, "one by one")
    pit = {column: np.array([row[column] for row in rows]) for column in named}
    levels, _ = calibration_curve(pit["cumulative"])
    chance = 1.96 * np.sqrt(levels * (1 - levels) / len(rows))
    figure = Figure(figsize=(5.2, 5))
    axes = figure.subplots()
    axes.fill_between(levels, levels - chance, levels + chance, color=GREY, alpha=0.18, lw=0, label="95 % of chance")
    axes.plot([0, 1], [0, 1], color=GREY, lw=1)
    for column, (color, label) in named.items():
        axes.step(levels, calibration_curve(pit[column])[1], where="post", color=color, lw=1.4, label=label)
    axes.set(xlabel="predicted quantile", ylabel="share of held-out values below it", xlim=(0, 1), ylim=(0, 1))
    area, after = metrics["miscalibration_area"], metrics["recalibrated_miscalibration_area"]
    verdict = "used" if learned["used"] else "not used" if learned["helps"] else "of no help"
    axes.set_title(f"miscalibration area {area:.3f}, stretched {after:.3f} ({verdict})", fontsize=10)
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def gradients(validation: dict[str, Any]) -> Figure:
    """Components of predicted against those of true gradients."""
    rows, metrics = validation["gradient"]["slopes"], validation["metrics"]
    names = list(dict.fromkeys(row["along"] for row in rows))
    figure = Figure(figsize=(5.4, 5))
    axes = figure.subplots()
    reach = 1.08 * max(max(abs(row["slope"]), abs(row["predicted_slope"])) for row in rows) or 1.0
    axes.fill_between([-reach, 0], [0, 0], [reach, reach], color=RED, alpha=0.06, lw=0)
    axes.fill_between([0, reach], [-reach, -reach], [0, 0], color=RED, alpha=0.06, lw=0)
    axes.text(-0.96 * reach, 0.95 * reach, "wrong sign", color=RED, fontsize=8, va="top")
    axes.plot([-reach, reach], [-reach, reach], color=GREY, lw=1, zorder=1)
    colours = colormaps["tab10"].colors if len(names) <= N_COLOURS else [BLUE] * len(names)  # type: ignore[attr-defined]
    for name, color in zip(names, colours, strict=False):
        true, error, predicted = (
            [row[column] for row in rows if row["along"] == name]
            for column in ("slope", "slope_error", "predicted_slope")
        )
        axes.errorbar(true, predicted, xerr=error, fmt="o", ms=4.5, lw=1, color=color, label=name)
    axes.set(
        xlabel="true slope, over the width of the variable's range",
        ylabel="predicted slope",
        xlim=(-reach, reach),
        ylim=(-reach, reach),
    )
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    told = {"gradient_cosine": "cosine", "gradient_sign_agreement": "right signs", "gradient_relative_error": "error"}
    axes.set_title(
        "gradient: " + ", ".join(f"{said} {metrics[name]:.2f}" for name, said in told.items() if name in metrics),
        fontsize=10,
    )
    if 1 < len(names) <= N_COLOURS:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def learning_curve(validation: dict[str, Any]) -> Figure:
    """The error of fits to parts of the samples, and what its law expects of more."""
    found, n_rows, metrics = validation["learning_curve"], validation["n_rows"], validation["metrics"]
    n, rmse = (np.array([row[column] for row in found["fits"]]) for column in ("n", "rmse"))
    law = found["law"]
    figure = Figure(figsize=(6.0, 4.2))
    axes = figure.subplots()
    axes.plot(n, rmse, "o", ms=4.5, color=BLUE, alpha=0.75, mew=0, label="fits to a part of the samples")
    for within, style in ((True, "-"), (False, "--")):
        ends = (n.min(), n_rows) if within else (n_rows, LOOK_AHEAD * n_rows)
        at = np.geomspace(*ends, 50)
        label = f"goes as $n^{{{-law['exponent']:.2g}}}$, ± {law['standard_error'] or 0:.1g}" if within else None
        axes.plot(at, law["scale"] * at ** -law["exponent"], style, color=RED, lw=1.2, label=label)
    axes.axvline(n_rows, color=GREY, lw=1, ls=":", label=f"all {n_rows} samples")
    axes.plot(2 * n_rows, metrics["rmse_if_doubled"], "D", color=RED, ms=5)
    axes.set(xlabel="samples", ylabel="root mean square error on samples held out")
    axes.set_xscale("log")
    if (rmse > 0).all():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if rmse.max() < 20 * rmse.min() else (1,)))
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks := sorted({*n.tolist(), n_rows, 2 * n_rows}), [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(
        f"twice as many samples: {metrics['rmse_ratio_if_doubled']:.2f} of the error expected now", fontsize=10
    )
    axes.legend(frameon=False, fontsize=8)
    return figure


def sensitivity(validation: dict[str, Any]) -> Figure:
    """How much of the prediction's variance each variable explains, the most important on top."""
    rows = sorted(validation["variables"], key=lambda row: -row["total"])[:PANELS]
    place = np.arange(len(rows), 0, -1)
    figure = Figure(figsize=(6.5, 1.3 + 0.45 * len(rows)))
    axes = figure.subplots()
    for column, color, shift, label in (
        ("first", BLUE, 0.17, "alone"),
        ("total", "#9cc3e6", -0.17, "with its interactions"),
    ):
        error = [row[f"{column}_error"] for row in rows]
        values = [row[column] for row in rows]
        style = {"ecolor": "#444", "elinewidth": 1, "capsize": 2}
        axes.barh(place + shift, values, 0.34, color=color, xerr=error, error_kw=style, label=label)
    axes.plot([row["relevance"] for row in rows], place, "D", ms=5, color=RED, label="relevance (1 / lengthscale²)")
    axes.set_yticks(place, [row["variable"] for row in rows])
    axes.set(xlabel="share of the prediction's variance; of all relevances")
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.set_title(
        f"single variables explain {validation['metrics']['first_order_share']:.0%} of the variance", fontsize=10
    )
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def reach(validation: dict[str, Any]) -> Figure:
    """Errors of held-out rows, in predicted standard deviations, against their distance from the data."""
    rows = [row for row in validation["held_out"] if row.get("extrapolation") is not None]
    far = np.array([row["extrapolation"] for row in rows])
    off = np.abs([row["standardized_error"] for row in rows])
    figure = Figure(figsize=(6.0, 4.0))
    axes = figure.subplots()
    axes.plot(far, np.minimum(off, OFF), "o", ms=4.5, mew=0, alpha=0.8, color=BLUE)
    axes.axhline(1.96, color=GREY, lw=1, ls="--")
    axes.text(0.995, 1.96, "95 % lie below", transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
    axes.axvline(1.0, color=RED, lw=1, ls=":")
    side = "left" if far.max() > 2 else "right"  # of the line there is more room for the words on the other one
    at_edge: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": side, "va": "top"}
    axes.text(1.0, 0.98, " edge of the data ", fontsize=8, color=RED, **at_edge)
    axes.set(xlabel="distance from the data, 1 at its edge", ylabel="error in predicted standard deviations")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.12 * max(np.minimum(off, OFF).max(), 1.96))  # room for the words above the dots
    share = validation["metrics"].get("extrapolation_share")
    told = "" if share is None else f"{share:.1%} of the search space lies beyond the data"
    axes.set_title(told, fontsize=10)
    return figure
