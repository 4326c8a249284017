"""The shipped problem over ten seeds: what one look promises, what rounds reach, and what others reach.

Each method makes as many calls: ours those of the shipped collect and optimize stages, Optuna's TPE sampler at its
defaults, Sobol sampling alone. Finished rows are kept, so a run that was stopped goes on; `--fresh` starts anew.
"""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optuna

from benchmarks.rows import FOLDER, ROOT, journal, options, row
from surrogate_core.collection import evaluate_points
from surrogate_core.evaluation import Evaluator
from surrogate_core.execution import ExecutorSpec
from surrogate_core.problems.optics import mean_reflectance
from surrogate_core.refinement import refine
from surrogate_core.sampling import sample
from surrogate_core.space import SearchSpace
from tasks.inputs import code_digest
from tasks.machine import machine
from tasks.settings import Settings, load_settings

SEEDS = range(10)
GOAL = 0.025


def _space(settings: Settings) -> SearchSpace:
    space = settings.problem.search_space
    assert space is not None
    return space


def ours(settings: Settings, seed: int) -> dict[str, Any]:
    """The collect, fit and optimize stages of the shipped params.yaml, with another seed."""
    space = _space(settings)
    X = space.decode(sample("sobol", settings.collect.n_samples, space.n_dims, seed))
    black_box = settings.problem.black_box(ROOT, FOLDER / "evaluations")
    with Evaluator(black_box, ExecutorSpec("serial")) as evaluator:
        dataset = evaluate_points(evaluator, space, X, "sample")
        fitted = settings.fit.spec.fit(dataset, jax.random.key(seed))
        found = refine(
            fitted,
            dataset,
            lambda number, points: evaluate_points(evaluator, space, points, f"round-{number}"),
            settings.optimize.multi_start,
            batches=[settings.optimize.evaluations_per_round] * settings.optimize.rounds,
            seed=seed,
        )
    first, last, everything = found.rounds[0], found.rounds[-1], dataset.append(found.evaluations)
    return {
        "best_sample": dataset.y.min(),
        "first_promised": first.expected.mean[0],
        "first_measured": first.rows.y[0],
        "last_promised": last.expected.mean[0],
        "last_measured": last.rows.y[0],
        "best": everything.y.min(),
    }


def tpe(settings: Settings, seed: int) -> dict[str, Any]:
    """Optuna's default sampler."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    space = _space(settings)
    bounds = dict(zip(space.names, space.bounds, strict=True))
    study.optimize(
        lambda trial: mean_reflectance(
            **{name: trial.suggest_float(name, *map(float, b)) for name, b in bounds.items()}
        ),
        n_trials=_budget(settings),
    )
    return {"best": study.best_value}


def sobol(settings: Settings, seed: int) -> dict[str, Any]:
    """Scrambled Sobol points and nothing else."""
    space = _space(settings)
    X = space.decode(sample("sobol", _budget(settings), space.n_dims, seed))
    return {"best": min(mean_reflectance(*map(float, x)) for x in X)}


METHODS: Mapping[str, Callable[[Settings, int], dict[str, Any]]] = {"ours": ours, "tpe": tpe, "sobol": sobol}


def main(arguments: Sequence[str] = ()) -> None:
    """Prints a row a seed, then medians and how many seeds reached the goal."""
    asked = options("benchmarks.coating", arguments)
    seeds = SEEDS[:1] if asked.quick else SEEDS
    settings = load_settings(ROOT / "params.yaml")
    about = (code_digest(ROOT), settings.digest, Path(__file__).read_bytes(), machine())
    print(f"{platform.machine()}, {machine()['threads']} CPUs, jax {version('jax')}, optuna {version('optuna')}")
    print(f"surrogate: {asdict(settings.fit.spec)}; {_budget(settings)} calls each")
    print("seed best sample | round 1: promised measured | last round: promised measured |  ours    tpe     sobol   s")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in METHODS}
    with journal("coating", about, asked.fresh) as done:
        for seed in seeds:
            for name, method in METHODS.items():
                rows[name].append(row(done, f"{name}/{seed}", partial(_floats, method, settings, seed)))
            mine = rows["ours"][-1]
            print(
                f"{seed:4d}  {mine['best_sample']:10.4f} | {mine['first_promised']:18.4f}"
                f" {mine['first_measured']:8.4f} | {mine['last_promised']:20.4f} {mine['last_measured']:8.4f} |"
                f" {mine['best']:.4f}  {rows['tpe'][-1]['best']:.4f}  {rows['sobol'][-1]['best']:.4f}"
                f"  {mine['seconds']:.0f}",
                flush=True,
            )
    best = {name: np.array([row["best"] for row in found]) for name, found in rows.items()}
    for name, values in best.items():
        print(
            f"{name:6s} median {np.median(values):.4f}, under {GOAL} on {np.sum(values < GOAL)} of {len(seeds)} seeds"
        )
    print(f"median ratio of the best value: tpe / ours {np.median(best['tpe'] / best['ours']):.2f}, ", end="")
    print(f"sobol / ours {np.median(best['sobol'] / best['ours']):.2f}")


def _floats(method: Callable[[Settings, int], dict[str, Any]], settings: Settings, seed: int) -> dict[str, Any]:
    return {name: float(value) for name, value in method(settings, seed).items()}


def _budget(settings: Settings) -> int:
    return settings.collect.n_samples + settings.optimize.rounds * settings.optimize.evaluations_per_round


if __name__ == "__main__":
    main(sys.argv[1:])
