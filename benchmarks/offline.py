"""Designs from data alone: what the one that is recommended gains on the best row, and whether its promise is kept.

    python -m benchmarks.offline [gaussian_process] [neural_network] [random_forest] [hybrid] [conservative] [--fresh]

20 tasks, of each surrogate five seeds or, of those that take minutes a row, one: 100 rows from the worse 60 % of 250
random designs. Nobody measures anything on the way; the true function judges at the end. `conservative` is the neural
network with its conservative term. Finished rows are kept, so a run that was stopped goes on.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.designs import coating
from benchmarks.rows import ROOT, journal, judged, options, row, sources
from surrogate_core import (
    Dataset,
    GPSurrogate,
    HybridSurrogate,
    MultiStartOptimizer,
    NeuralSurrogate,
    RandomForestSurrogate,
)
from surrogate_core.offline import recommend
from surrogate_core.problems import analytic, engineering, structures
from surrogate_core.problems.problem import Problem
from surrogate_core.sampling import feasible_sample
from surrogate_core.surrogates.base import Surrogate
from tasks.machine import machine

HEAD = "task            seed     best row     optimum  gain: mean  cautious  default   kappa  promised, measured"
GOALS = ("mean", "cautious")  # what our default is compared with
SPECS: dict[str, Surrogate] = {
    "gaussian_process": GPSurrogate(),
    "neural_network": NeuralSurrogate(),
    "random_forest": RandomForestSurrogate(),
    "hybrid": HybridSurrogate(),
    "conservative": NeuralSurrogate(conservative_weight=0.1),
}
SEEDS = {"gaussian_process": range(5), **dict.fromkeys(list(SPECS)[1:], range(1))}
FEWEST = 20  # rows of which rates are judged
COATING_MINIMUM = 0.0122  # the best that any run has found


def _coating() -> Problem:
    return replace(coating(), minimum=COATING_MINIMUM)


FOUR = ("sphere", "rosenbrock", "rastrigin", "ackley", "griewank", "levy", "schwefel")
TASKS: dict[str, Callable[[], Problem]] = {
    "coating": _coating,
    **{f"{name}4": partial(getattr(analytic, name), 4) for name in FOUR},
    **{f"{name}8": partial(getattr(analytic, name), 8) for name in ("rosenbrock", "levy")},
    **{name: getattr(analytic, name) for name in ("branin", "hartmann3", "hartmann6")},
    **{name: getattr(engineering, name) for name in ("borehole", "wing_weight", "otl_circuit", "piston")},
    **{name: getattr(structures, name) for name in ("spring", "pressure_vessel", "welded_beam")},
}


def problem(name: str, seed: int) -> Problem:
    """A problem; of those with a known formula, shifted by the seed."""
    made = TASKS[name]()
    return made.shifted(seed) if name.rstrip("0123456789") in (*FOUR, "branin", "hartmann") else made


def task(name: str, seed: int) -> tuple[Dataset, Callable[[np.ndarray], float], float]:
    """Rows from the worse part of random designs, the true function, and its least value."""
    made = problem(name, seed)
    space = made.space
    X = space.decode(feasible_sample(space, "random", 250, 1000 + seed))
    y = np.array([made(space.params(x)) for x in X])
    worse = np.argsort(-y, kind="stable")[: int(0.6 * len(y))]
    rows = np.random.default_rng(seed).permutation(worse)[:100]
    return Dataset(X[rows], y[rows], space), lambda x: made(space.params(x)), made.minimum


def measure(kind: str, name: str, seed: int) -> dict[str, Any]:
    """What the one design that is recommended gains, as a part of the gap between the best row and the optimum."""
    data, function, least = task(name, seed)
    best = float(data.y.min())

    def gain(x: np.ndarray) -> float:
        return (best - function(x)) / (best - least)

    spec = SPECS[kind]
    fitted = spec.fit(data, jax.random.key(seed))
    told = {goal: gain(MultiStartOptimizer().optimize(fitted, goal=goal, seed=seed).x) for goal in GOALS}
    advice = recommend(spec, data, seed=seed)
    value = function(advice.x)
    return {
        "best": best,
        "least": least,
        **told,
        "default": gain(advice.x),
        "followed": gain(advice.found.x),
        "kappa": advice.strength.kappa,
        "stays": advice.stays,
        "probability": advice.trust.probability,
        "verdict": advice.trust.verdict,
        "promised": advice.promised,
        "lower": advice.lower,
        "upper": advice.upper,
        "measured": value,
        "held": bool(advice.lower <= value <= advice.upper),
    }


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Whether the default is never worse, gains enough, beats the mean, and keeps what it promises."""
    lines, clipped = [], {}
    for name in (*GOALS, "default"):
        gains = np.array([told[name] for told in rows])
        clipped[name] = float(np.clip(gains, -1, 1).mean())
        lines.append(
            f"{name:9s} worse than the best row on {int((gains < 0).sum())} of {len(rows)}; gain in the median "
            f"{np.median(gains):.2f}, in the mean {clipped[name]:.3f} (each within -1 and 1)"
        )
    gains = np.array([told["default"] for told in rows])
    stays, held = (float(np.mean([told[name] for told in rows])) for name in ("stays", "held"))
    follows = [told["held"] for told in rows if not told["stays"]]
    met = gains.min() >= 0 and np.median(gains) >= 0.1 and clipped["default"] > clipped["mean"] and 0.9 <= held <= 0.98
    of_designs = f", of designs on {np.mean(follows):.1%} of {len(follows)}" if follows else ""
    told = f"stays with the best row on {stays:.0%}; 95 % intervals held on {held:.1%}{of_designs}"
    lines.append(judged(told, met if len(rows) >= FEWEST else None))
    return "\n".join(lines)


def main(arguments: Sequence[str] = ()) -> None:
    """Prints a row a task and seed, and what was required."""
    about = (sources(ROOT / "surrogate_core", ROOT / "benchmarks"), machine())
    asked = options("benchmarks.offline", arguments, SPECS)
    kinds = asked.parts[: 1 if asked.quick else None]
    print("gain: part of the gap from the best row to the optimum that the recommended design closes")
    with journal("offline", about, asked.fresh) as done:
        for kind in kinds:
            print(f"\n{kind}\n{HEAD}")
            rows = []
            for seed in SEEDS[kind][: 1 if asked.quick else None]:
                for name in list(TASKS)[: 4 if asked.quick else None]:
                    rows.append(row(done, f"{kind}/{name}/{seed}", partial(measure, kind, name, seed)))
                    print(_line(name, seed, rows[-1]), flush=True)
            print(verdict(rows))


def _line(name: str, seed: int, told: dict[str, Any]) -> str:
    if told["stays"]:
        promise = f"the best row stays; the design would gain {told['followed']:.2f}"
    else:
        promise = f"{told['promised']:.4g} ({told['lower']:.4g} to {told['upper']:.4g}), {told['measured']:.4g}"
    return (
        f"{name:15s} {seed:4d} {told['best']:12.4g} {told['least']:11.4g} {told['mean']:11.2f} {told['cautious']:9.2f}"
        f" {told['default']:8.2f} {told['kappa']:7.2f}  {promise}{'' if told['held'] else '  NOT HELD'}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
