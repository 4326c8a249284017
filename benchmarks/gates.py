"""Do the gates tell good fits from bad? Each of 20 problems with few and with many rows, and with few and no priors,
which makes a fit too sure: the verdict of the validation, which sees the rows alone (and a few finite differences),
beside the truth on points that nobody had seen.

A fit is good where it meets the same bound there. Finished rows are kept, so a run that was stopped goes on; `--fresh`
starts anew. Takes some minutes.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.rows import ROOT, journal, options, row, sources
from surrogate_core.dataset import Dataset
from surrogate_core.problems.library import PROBLEMS
from surrogate_core.problems.problem import Problem
from surrogate_core.sampling import sample
from surrogate_core.surrogates.gaussian_process import GPSurrogate
from surrogate_core.validation.cross_validation import cross_validate
from surrogate_core.validation.finite_differences import stencil
from surrogate_core.validation.gates import judge
from surrogate_core.validation.gradient_agreement import agreement_at
from surrogate_core.validation.gradient_check import noise_at, points_to_check, step_lengths
from surrogate_core.validation.metrics import regression_metrics
from tasks.settings import load_settings

BOUNDS: Mapping[str, float] = {"min_r2": 0.8, "min_coverage_95": 0.85, "min_gradient_cosine": 0.8}
FITS = {"few": (4, GPSurrogate()), "many": (25, GPSurrogate()), "flat": (4, GPSurrogate(prior="flat"))}
"""Rows a variable, and the surrogate."""
MOST_ROWS, N_TEST, N_GRADIENTS, N_CHECKED = 200, 300, 40, 6


def coating() -> Problem:
    """The shipped problem; its least value is not used here."""
    from surrogate_core.problems.optics import mean_reflectance

    space = load_settings(ROOT / "params.yaml").problem.search_space
    assert space is not None
    return Problem("coating", mean_reflectance, space, {}, 0.0, "params.yaml")


def values(problem: Problem, X: np.ndarray) -> np.ndarray:
    return np.array([problem(problem.space.params(x)) for x in X])


def gradients(problem: Problem, fitted: Any, X: np.ndarray) -> dict[str, float]:
    """Agreement of the surrogate's gradients with finite differences of the true function."""
    if not (problem.space.n_choices == 0).any():
        return {}
    around = stencil(problem.space, X, step_lengths(fitted, X))
    true, error = around.combine(values(problem, around.points), noise_at(fitted, around.points))
    return agreement_at(fitted, X, true, error).metrics


def one(problem: Problem, spec: GPSurrogate, n: int, seed: int) -> dict[str, Any]:
    """Metrics as validated, and as they are."""
    space = problem.space
    X = space.decode(sample("sobol", n, space.n_dims, seed))
    data = Dataset(X, values(problem, X), space)
    fitted = spec.fit(data)
    told = cross_validate(spec, data, 5, seed).metrics
    told |= gradients(problem, fitted, points_to_check(fitted, data, N_CHECKED, seed))
    at = space.decode(sample("sobol", N_TEST, space.n_dims, seed + 1000))
    y, expected = values(problem, at), fitted.predictive(at)
    true = regression_metrics(y, expected.mean, expected.log_density(y), expected.cumulative(y), expected.crps(y))
    true |= gradients(problem, fitted, at[:N_GRADIENTS])
    names = [name.partition("_")[2] for name in BOUNDS]
    return {"told": {name: told.get(name) for name in names}, "true": {name: true.get(name) for name in names}}


def main(arguments: Sequence[str] = ()) -> None:
    """Prints a row a fit, and of each gate how often it was right."""
    asked = options("benchmarks.gates", arguments)
    problems = [coating(), *(make() for make in PROBLEMS.values())][: 4 if asked.quick else None]
    print(f"{len(problems)} problems, {GPSurrogate()}, flat: without priors; told by the validation / true;")
    print("x is a verdict that was wrong; -: no gradient can be told from noise")
    heads = [f"{name} {bound:g}" for name, bound in BOUNDS.items()]
    print(f"{'problem':16s} {'rows':>10s}  " + "  ".join(f"{head:>24s}" for head in heads))
    verdicts: dict[str, list[tuple[bool, bool]]] = {name: [] for name in BOUNDS}
    about = sources(ROOT / "surrogate_core"), (ROOT / "benchmarks" / "gates.py").read_bytes()
    with journal("gates", about, asked.fresh) as kept:
        for problem in problems:
            for size, (each, spec) in FITS.items():
                n = min(each * problem.space.n_dims, MOST_ROWS)
                made = row(kept, f"{problem.name}/{size}", partial(one, problem, spec, n, 1))
                cells = []
                judged = zip(judge(made["told"], BOUNDS), judge(made["true"], BOUNDS), strict=True)
                for told, true in judged:
                    verdicts[told.name].append((told.passed, true.passed))
                    sign = " " if told.passed == true.passed else "x"
                    both = " / ".join("-" if one.value is None else f"{one.value:.2f}" for one in (told, true))
                    cells.append(f"{both} {'pass' if told.passed else 'FAIL'} {sign}")
                print(
                    f"{problem.name:16s} {n:5d} {size:4s}  " + "  ".join(f"{cell:>24s}" for cell in cells), flush=True
                )
    for name, pairs in verdicts.items():
        passed = [true for told, true in pairs if told]
        failed = [true for told, true in pairs if not told]
        print(
            f"{name}: passed {len(passed)}, of which {sum(passed)} are good; "
            f"failed {len(failed)}, of which {len(failed) - sum(failed)} are bad"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
