"""Pictures of what was proposed: promises and what was measured, and the specs that were tried."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tasks.pictures.drawing import BLUE, GREY, RED


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
    tried = [(row["number"] + 1, row["nlpd"]) for row in tuning["trials"] if row["status"] == "ok"]
    figure = Figure(figsize=(6.5, 3.8))
    axes = figure.subplots()
    number, nlpd = (np.array(column) for column in zip(*tried, strict=True))
    axes.plot(number, nlpd, "o", color=BLUE, ms=4, label="specs")
    axes.step(number, np.minimum.accumulate(nlpd), where="post", color=RED, lw=1, label="best so far")
    axes.axhline(tuning["champion"]["metrics"]["nlpd"], color=GREY, lw=1, ls="--", label="champion")
    axes.set(xlabel="spec", ylabel="negative log density (less is better)")
    verdict = "better than" if tuning["challenger_is_better"] else "not better than"
    advantage = tuning["advantage"]
    axes.set_title(
        f"the challenger is {verdict} the champion:\n{advantage['mean_log_density']:+.2f} "
        f"± {advantage['standard_error']:.2f} in log density, p = {advantage['p_value']:.2g}",
        fontsize=10,
    )
    axes.legend(frameon=False)
    return figure
