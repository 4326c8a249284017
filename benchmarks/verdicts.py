"""What the Gaussian process must reach against its peers, and whether it does, by the rows of one run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.rows import judged

NATS = 0.01  # of likelihood that count as none
Row = Mapping[str, Any]
Rows = Mapping[tuple[str, int, str], Row]
"""By problem, n and peer."""


@dataclass(frozen=True)
class NoWorse:
    """A condition on our row and theirs, and the part of all rows that must meet it."""

    name: str
    holds: Callable[[Row, Row], bool]
    part: float


LIKELY = NoWorse("likelihood as good", lambda ours, theirs: ours["likelihood"] >= theirs["likelihood"] - NATS, 1.0)
DENSE = NoWorse("NLPD as good", lambda ours, theirs: ours["nlpd"] <= theirs["nlpd"], 0.5)

NEARER = NoWorse("RMSE less", lambda ours, theirs: ours["rmse"] < theirs["rmse"], 1.0)


@dataclass(frozen=True)
class Required:
    """The median over rows of the ratio of a peer's figure to ours, and what must be no worse.

    Args:
        name: as the table has it.
        at_least: the ratio.
        ours, theirs: which of `PEERS` are compared.
        figure, their_figure: what of their rows; by default the same.
        n, d: of the rows; by default of any.
        no_worse: what is also required.
    """

    name: str
    at_least: float
    ours: str
    theirs: str
    figure: str
    their_figure: str = ""
    n: int | None = None
    d: int | None = None
    no_worse: NoWorse | None = None

    def verdict(self, rows: Rows) -> str:
        """What was reached, from where to where, and yes or no, as a line."""
        begin = f"{self.name:67s} {self.at_least:7g}"
        pairs = [
            (rows[problem, n, self.ours], theirs)
            for (problem, n, peer), theirs in rows.items()
            if peer == self.theirs and (problem, n, self.ours) in rows and self._covers(n, theirs["d"])
        ]
        if not pairs:
            return f"{begin}       -  -    no rows to compare in this run"
        ratios = np.array([theirs[self.their_figure or self.figure] / ours[self.figure] for ours, theirs in pairs])
        reached, also = np.median(ratios) >= self.at_least, ""
        if self.no_worse is not None:
            n_good = sum(self.no_worse.holds(ours, theirs) for ours, theirs in pairs)
            reached = reached and n_good >= self.no_worse.part * len(pairs)
            also = f"; {self.no_worse.name} on {n_good}"
        spread = f"({ratios.min():.3g} to {ratios.max():.3g} on {len(pairs)} rows{also})"
        return judged(f"{begin} {np.median(ratios):7.3g}  {spread}", bool(reached))

    def _covers(self, n: int, d: int) -> bool:
        return self.n in (None, n) and self.d in (None, d)


REQUIRED = (
    Required(
        "fit against scikit-learn, n = 200, without priors as theirs",
        20,
        "flat",
        "sklearn",
        "fit",
        n=200,
        no_worse=LIKELY,
    ),
    Required(
        "fit against scikit-learn, n = 2000, without priors as theirs",
        8,
        "flat",
        "sklearn",
        "fit",
        n=2000,
        no_worse=LIKELY,
    ),
    Required("fit against scikit-learn, n = 200, as by default", 20, "ours", "sklearn", "fit", n=200),
    Required("fit against scikit-learn, n = 2000, as by default", 8, "ours", "sklearn", "fit", n=2000),
    Required("fit against BoTorch, n = 200", 5, "ours", "botorch", "fit", n=200, no_worse=DENSE),
    Required("mean of 10,000 points against scikit-learn", 4, "ours", "sklearn", "mean"),
    Required(
        "mean of 10,000 points against scikit-learn helped by chunks", 1, "ours", "sklearn", "mean", "mean_in_chunks"
    ),
    *(
        Required(
            f"gradient of 10,000 points against scikit-learn's differences, d = {d}",
            ratio,
            "ours",
            "sklearn",
            "gradient",
            d=d,
        )
        for d, ratio in ((2, 5), (6, 12), (20, 25))
    ),
    Required("RMSE of the engine with its derivatives against without", 1, "slopes", "ours", "rmse", no_worse=NEARER),
)
