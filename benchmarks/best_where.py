"""The picture of which of our surrogates is best where: its density and its coverage on each problem."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import FOLDER

KINDS = {"ours": "Gaussian process", "network": "neural network", "forest": "random forest", "hybrid": "hybrid"}
COLORS = {"ours": "#1f5fa8", "network": "#d1495b", "forest": "#3a8f4f", "hybrid": "#7b5ea7"}
MARKERS = {"ours": "o", "network": "s", "forest": "^", "hybrid": "D"}


def draw(rows: Mapping[tuple[str, int, str], Mapping[str, Any]]) -> Path | None:
    """A PNG of the rows of a run, by problem, n and peer; None where fewer than two kinds are among them."""
    kinds = [kind for kind in KINDS if any(peer == kind for _, _, peer in rows)]
    places = sorted({(n, problem) for problem, n, peer in rows if peer in kinds})
    if len(kinds) < 2:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.5 + 0.32 * len(places)), layout="constrained")
    density, coverage = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for kind in kinds:
        at = [i for i, (n, problem) in enumerate(places) if (problem, n, kind) in rows]
        told = [rows[places[i][1], places[i][0], kind] for i in at]
        style = {"color": COLORS[kind], "marker": MARKERS[kind], "linestyle": "", "label": KINDS[kind]}
        least = [min(rows[p, n, k]["nlpd"] for k in kinds if (p, n, k) in rows) for n, p in (places[i] for i in at)]
        density.plot(np.array([one["nlpd"] for one in told]) - least, at, **style)
        coverage.plot([one["coverage"] for one in told], at, **style)
    density.set_xscale("symlog", linthresh=0.1)
    density.set_xlabel("nats a point by which the NLPD is above that of the best (0: the best)")
    density.set_yticks(range(len(places)), [f"{problem}, n = {n}" for n, problem in places])
    density.invert_yaxis()
    coverage.axvline(0.95, color="black", linewidth=0.8)
    coverage.set_xlabel("coverage of 95 % intervals")
    for axes in (density, coverage):
        axes.grid(axis="y", linewidth=0.3)
    figure.legend(*density.get_legend_handles_labels(), loc="outside upper center", ncols=len(kinds), frameon=False)
    path = FOLDER / "best_where.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
