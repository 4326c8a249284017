"""Pictures of reports: what people would rather look at than read. Drawn without a display or global state."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from surrogate_core.validation.gates import Gate

BLUE, RED, GREY = "#1f6fb4", "#c8442c", "#8a8a8a"


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=120, bbox_inches="tight")
    return sink.getvalue()


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
    axes.set(xlabel="round", ylabel="objective", xticks=number)
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
