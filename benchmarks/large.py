"""Many rows: our surrogates against scikit-learn's HistGradientBoosting; and estimates of memory for fits of any size.

    python -m benchmarks.large [--fresh]

Each row is a process of its own. RMSE is in units of the deviation of y; memory is by how much the process grows.
"""

import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version

import numpy as np

from benchmarks.rows import ROOT, alone, journal, judged, options, row, sources
from surrogate_core import (
    GPSurrogate,
    HybridSurrogate,
    NeuralSurrogate,
    RandomForestSurrogate,
    SearchSpace,
    select_surrogate,
)
from surrogate_core.problems import analytic, engineering
from surrogate_core.surrogates.base import Surrogate
from tasks.machine import machine

HGB = "HistGradientBoosting"
N, D, N_TEST = 50_000, 10, 5000
TIMES, LIMIT_MB = 1.3, 2048.0  # of its RMSE and of memory, at most
FACTOR = 2.0  # between an estimate and what is measured, at most
NOISE = {"friedman": 0.0, "friedman, noise": 0.2, "wing_weight": 0.0, "ackley": 0.0, "rosenbrock": 0.0}
SMALLER = [(50, 2), (200, 10), (500, 5), (1000, 10), (2000, 3), (3000, 10), (3000, 30), (10_000, 10), (50_000, 10)]
LIMIT = 1200  # seconds a row may take


def specs() -> dict[str, Surrogate]:
    """What is measured."""
    return {
        "gaussian_process": GPSurrogate(),
        "neural_network": NeuralSurrogate(),
        "random_forest": RandomForestSurrogate(),
        "hybrid": HybridSurrogate(),
    }


def data(problem: str, n: int, d: int) -> tuple[SearchSpace, np.ndarray, np.ndarray]:
    """Random rows of a function of d variables."""
    rng = np.random.default_rng(0)
    U = rng.random((n, d))
    space = SearchSpace.from_bounds([(0.0, 1.0)] * d)
    if problem.startswith("friedman"):  # Friedman (1991), Ann. Stat. 19, 1, eq. 61; five variables count
        V = np.column_stack([U, np.full((n, max(0, 5 - d)), 0.5)])
        y = 10 * np.sin(np.pi * V[:, 0] * V[:, 1]) + 20 * (V[:, 2] - 0.5) ** 2 + 10 * V[:, 3] + 5 * V[:, 4]
    else:
        made = engineering.wing_weight() if problem == "wing_weight" else getattr(analytic, problem)(d)
        y = np.array([made(made.space.params(x)) for x in made.space.decode(U)])
    return space, U, y + NOISE[problem] * y.std() * rng.standard_normal(n)


def main(arguments: Sequence[str] = ()) -> None:
    """Prints a row each, and what was required."""
    versions = {name: version(name) for name in ("jax", "scikit-learn")}
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"{HGB}: HistGradientBoostingRegressor(random_state=0); ours at their defaults\n")
    asked = options("benchmarks.large", arguments)
    about = (sources(ROOT / "surrogate_core", ROOT / "benchmarks"), machine(), versions)
    models = ("gaussian_process", "neural_network", "random_forest")
    met = dict.fromkeys(models[:2], True)
    with journal("large", about, asked.fresh) as done:
        print(f"{N} rows of {D}       model                       s      MB     RMSE   times    NLPD  cover")
        for problem in list(NOISE)[: 1 if asked.quick else None]:
            theirs = None
            for model in (HGB, *models):
                key = f"{model}/{problem}"
                told = row(done, key, partial(alone, "benchmarks.one_large", model, problem, N, D, limit=LIMIT))
                theirs = theirs or told["rmse"]
                ours = "" if model == HGB else f"{told['nlpd']:8.3f} {told['coverage']:6.3f}"
                times = told["rmse"] / theirs
                figures = f"{told['s']:7.1f} {told['mb']:7.0f} {told['rmse']:8.5f} {times:7.3f}"
                print(f"{problem:18s} {model:22s} {figures} {ours}", flush=True)
                if model in met:
                    met[model] &= times <= TIMES and told["mb"] <= LIMIT_MB
                if told.get("accuracy"):
                    print(f"{'':19s}{told['accuracy']}")
        for model, is_met in met.items():
            told_of = f"{model}, {N} rows of {D}: RMSE within {TIMES:g} of scikit-learn's boosting in {LIMIT_MB:g} MB"
            print(judged(told_of, is_met))
        print("\nmemory            rows   d   measured  estimated   times")
        factors = []
        for model, spec in specs().items():
            for n, d in SMALLER[: 2 if asked.quick else None]:
                if model == "hybrid" and n > 1000:  # minutes each
                    continue
                key = f"memory/{model}/{n}/{d}"
                told = row(done, key, partial(alone, "benchmarks.one_large", model, "friedman", n, d, limit=LIMIT))
                estimated = spec.estimate(n, d).memory_mb
                factors.append(estimated / told["mb"])
                print(f"{model:16s} {n:5d} {d:3d} {told['mb']:10.0f} {estimated:10.0f} {factors[-1]:7.2f}", flush=True)
    is_met = max(*factors, *(1 / one for one in factors)) <= FACTOR
    print(judged(f"estimates are {min(factors):.2f} to {max(factors):.2f} times the memory measured", is_met))
    print("\nselect_surrogate: budget in MB, and the choice for 200 rows of 5, 3,000 of 10 and 50,000 of 10")
    for budget in (4000, 1000, 500, 250, 150, 100):
        chosen = []
        for n, d in ((200, 5), (3000, 10), (50_000, 10)):
            try:
                chosen.append(str(select_surrogate(n, d, budget).surrogate))
            except ValueError:
                chosen.append("none")
        print(f"{budget:6d}  {', '.join(chosen)}")


if __name__ == "__main__":
    main(sys.argv[1:])
