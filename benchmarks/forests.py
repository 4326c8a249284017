"""The soft forest: its fit against scikit-learn's, and what its gradient is worth beside differences of the hard one.

python -m benchmarks.forests
"""

import inspect
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from sklearn.ensemble import RandomForestRegressor

from benchmarks.rows import ROOT, journal, judged, options, row, sources
from surrogate_core import Dataset, Float, RandomForestSurrogate, SearchSpace
from surrogate_core.problems.library import PROBLEMS
from surrogate_core.sampling import sample
from tasks.machine import machine

SIZES, D, FITS = (50, 200, 1000, 5000), 6, 5
TIMES = 2.0  # at most so many times scikit-learn's
N, N_POINTS = 200, 200
NUMERIC = [
    name
    for name, make in PROBLEMS.items()
    if all(isinstance(variable, Float) and variable.step is None for variable in make().space.variables)
]
STEPS = (0.01, 0.03, 0.1)  # of central differences, in unit-cube units


def scikit_learns(U: np.ndarray, y: np.ndarray, seed: int) -> RandomForestRegressor:
    """At its defaults."""
    return RandomForestRegressor(random_state=seed).fit(U, y)


def fits(n: int) -> dict[str, float]:
    """Seconds, the median of all fits but the first, by turns."""
    U = np.random.default_rng(0).random((FITS, n, D))
    y = np.sin(5 * U[:, :, 0]) + U[:, :, 1] * U[:, :, 2]
    space = SearchSpace.from_bounds([(0.0, 1.0)] * D)
    seconds: dict[str, list[float]] = {"ours": [], "scikit-learn": []}
    for i in range(FITS):
        data = Dataset(U[i], y[i], space)
        began = time.perf_counter()
        RandomForestSurrogate().fit(data, jax.random.key(i))
        between = time.perf_counter()
        scikit_learns(U[i], y[i], i)
        seconds["ours"].append(between - began)
        seconds["scikit-learn"].append(time.perf_counter() - between)
    return {name: float(np.median(taken[1:])) for name, taken in seconds.items()}


def cosines(name: str) -> dict[str, Any]:
    """Mean cosine of gradients with the true one, by the unit cube; of differences where they are 0 it is 0."""
    problem = PROBLEMS[name]()
    space = problem.space
    d = space.n_dims

    def true(U: np.ndarray) -> np.ndarray:
        return np.array([problem(space.params(x)) for x in space.decode(U)])

    U, at = sample("sobol", N, d, 1), 0.1 + 0.8 * sample("sobol", N_POINTS, d, 2)
    y = true(U)
    told = _differences(true, at, 1e-5)
    fitted = RandomForestSurrogate().fit(Dataset(space.decode(U), y, space))
    hard = scikit_learns(U, y, 0)
    X = space.decode(at)
    soft = fitted.gradient(X) / space.slope(X)
    return {
        "d": d,
        "soft": _cosine(soft, told),
        **{f"hard {h}": _cosine(_differences(hard.predict, at, h), told) for h in STEPS},
        "finite": bool(np.isfinite(soft).all() and (np.abs(soft).max(axis=1) > 0).all()),
    }


def _differences(f: Any, U: np.ndarray, h: float) -> np.ndarray:
    d = U.shape[1]
    return np.column_stack([(f(U + h * e) - f(U - h * e)) / (2 * h) for e in np.eye(d)])


def _cosine(g: np.ndarray, true: np.ndarray) -> float:
    size = np.linalg.norm(g, axis=1) * np.linalg.norm(true, axis=1)
    return float(np.mean(np.sum(g * true, axis=1) / np.where(size > 0, size, 1.0)))


def main(arguments: Sequence[str] = ()) -> None:
    """Prints the peer's code, the tables, and what was required."""
    versions = {name: version(name) for name in ("jax", "scikit-learn")}
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(inspect.getsource(scikit_learns))
    asked = options("benchmarks.forests", arguments)
    about = (sources(ROOT / "surrogate_core", ROOT / "benchmarks"), machine(), versions)
    with journal("forests", about, asked.fresh) as done:
        print(f"fit of {D} variables   rows     ours  scikit-learn   times")
        times = []
        for n in SIZES[: 1 if asked.quick else None]:
            told = row(done, f"fit/{n}", partial(fits, n))
            times.append(told["ours"] / told["scikit-learn"])
            print(f"{'':20s} {n:6d} {told['ours']:8.3f} {told['scikit-learn']:13.3f} {times[-1]:7.2f}", flush=True)
        met = np.median(times) <= TIMES
        print(judged(f"times of a fit beside scikit-learn's: {np.median(times):.2f}, at most {TIMES:g}", met) + "\n")
        print(f"cosine of gradients with the true one, {N} rows    soft   hard, by differences over {STEPS}")
        rows = []
        for name in NUMERIC[: 3 if asked.quick else None]:
            rows.append(told := row(done, f"cosine/{name}", partial(cosines, name)))
            hard = "  ".join(f"{told[f'hard {h}']:6.3f}" for h in STEPS)
            print(f"{name:20s} d = {told['d']:2d} {'':20s} {told['soft']:6.3f}  {hard}", flush=True)
    soft, *differences = ([told[key] for told in rows] for key in ("soft", *(f"hard {h}" for h in STEPS)))
    better = sum(one > max(others) for one, *others in zip(soft, *differences, strict=True))
    means = ", ".join(f"{np.mean(one):.3f}" for one in differences)
    is_finite = all(told["finite"] for told in rows)
    print(f"mean {np.mean(soft):.3f} beside {means}; better than the best of them on {better} of {len(rows)}")
    print(judged("gradients are finite and nowhere 0", is_finite))


if __name__ == "__main__":
    main(sys.argv[1:])
