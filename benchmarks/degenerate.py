"""Datasets that break a Gaussian process: which fallback ran, and whether what came of it is of use.

A finite prediction is not enough: the error is held against that of predicting the mean of the rows, and the share of
the true values within the 95 % interval is shown, both over points that the fits have not seen, and over ten seeds of
rows and noise. Takes half a minute.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.rows import options
from surrogate_core.dataset import Dataset
from surrogate_core.sampling import sample
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.base import Surrogate
from surrogate_core.surrogates.gaussian_process import GPSurrogate

Function = Callable[[np.ndarray], np.ndarray]
Case = Callable[[int], tuple[Dataset, Function]]
N_TEST, N_SEEDS = 300, 10


@dataclass(frozen=True)
class Outcome:
    """Over the seeds: root mean square error over that of predicting the mean, coverage, and how often what ran."""

    error_ratio: float
    coverage_95: float
    fallbacks: Counter[str]


def wavy(U: np.ndarray) -> np.ndarray:
    """Smooth, of the size of 1; it depends on two variables, the second less."""
    return np.sin(4 * U[:, 0]) + (U[:, 1] - 0.4) ** 2


def _flat(U: np.ndarray) -> np.ndarray:
    return np.full(len(U), 3.0)


def _rows(n: int, d: int = 2, truth: Function = wavy, noise: float = 0.0, repeat: int = 1, apart: float = 0.0) -> Case:
    """n rows, each of them `repeat` times, the later ones a little apart."""

    def case(seed: int) -> tuple[Dataset, Function]:
        U = sample("sobol", n, d, seed)
        U = np.vstack([U * (1 - i * apart) for i in range(repeat)])
        y = truth(U) + noise * np.random.default_rng(seed).standard_normal(len(U))
        return Dataset(U, y, SearchSpace.from_bounds([(0, 1)] * d)), truth

    return case


def _spoilt(spoil: Callable[[np.ndarray, np.ndarray], None], n: int = 30, d: int = 2) -> Case:
    """Rows of which `spoil` changes X and y in place."""

    def case(seed: int) -> tuple[Dataset, Function]:
        data, truth = _rows(n, d)(seed)
        X, y = data.X.copy(), data.y.copy()
        spoil(X, y)
        return Dataset(X, y, data.space), truth

    return case


def _outlier(value: float) -> Case:
    def spoil(_: np.ndarray, y: np.ndarray) -> None:
        y[7] = value

    return _spoilt(spoil)


def _constant_column(X: np.ndarray, _: np.ndarray) -> None:
    X[:, 2] = 0.5


def _every_other_failed(_: np.ndarray, y: np.ndarray) -> None:
    y[::2] = np.nan


CASES: Mapping[str, Case] = {
    "plain": _rows(30),
    "every row twice": _rows(15, repeat=2),
    "every row 3 times, noisy": _rows(15, repeat=3, noise=0.2),
    "rows 1e-7 apart": _rows(15, repeat=2, apart=1e-7),
    "rows 1e-5 apart, noisy": _rows(15, repeat=2, apart=1e-5, noise=0.2),
    "constant output": _rows(20, truth=_flat),
    "constant up to rounding": _rows(20, truth=lambda U: _flat(U) * (1 + 1e-16 * U[:, 0])),
    "values of 1e12": _rows(30, truth=lambda U: 1e12 * wavy(U)),
    "values of 1e12 + 1": _rows(30, truth=lambda U: 1e12 + wavy(U)),
    "values of 1e-12": _rows(30, truth=lambda U: 1e-12 * wavy(U)),
    "an outlier of 1e6": _outlier(1e6),
    "an outlier of -1e6": _outlier(-1e6),
    "one row": _rows(1),
    "two rows": _rows(2),
    "6 rows, 10 variables": _rows(6, 10),
    "a constant column": _spoilt(_constant_column, d=3),
    "half of the rows failed": _spoilt(_every_other_failed, n=40),
    "12 rows, noise as large": _rows(12, noise=1.0),
}


def outcome(case: str, spec: Surrogate, n_seeds: int = N_SEEDS) -> Outcome:
    """What comes of a case."""
    errors, plain, inside, ran = [], [], [], Counter[str]()
    for seed in range(n_seeds):
        data, truth = CASES[case](seed)
        fitted = spec.fit(data)
        y = truth(at := sample("sobol", N_TEST, data.n_dims, seed=99))
        lower, upper = fitted.interval(at)
        size = 1e-15 * np.abs(y).max()  # equal up to rounding
        errors.append(np.mean((fitted.predict(at) - y) ** 2) + size**2)
        plain.append(np.mean((data.ok.y.mean() - y) ** 2) + size**2)
        inside.append(np.mean((lower - size <= y) & (y <= upper + size)))
        ran.update(fitted.diagnostics["fallbacks"])
    return Outcome(float(np.sqrt(np.mean(errors) / np.mean(plain))), float(np.mean(inside)), ran)


def main(arguments: Sequence[str] = ()) -> None:
    """Prints a row a case."""
    spec, n_seeds = GPSurrogate(), 2 if options("benchmarks.degenerate", arguments).quick else N_SEEDS
    print(f"{n_seeds} seeds each; {spec}")
    print(f"{'dataset':28s} {'RMSE / that of the mean':>24s} {'95 % coverage':>14s}  what ran, on how many seeds")
    for case in CASES:
        told = outcome(case, spec, n_seeds)
        ran = "; ".join(f"{line} ({n})" for line, n in told.fallbacks.most_common()) or "nothing but the fit"
        print(f"{case:28s} {told.error_ratio:24.2g} {told.coverage_95:14.0%}  {ran}")
    try:
        spec.fit(Dataset(np.full((1, 2), 0.5), np.array([np.nan]), SearchSpace.from_bounds([(0, 1)] * 2)))
    except ValueError as error:
        print(f"{'all rows failed':28s} {'ValueError':>24s} {'':14s}  {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
