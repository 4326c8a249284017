"""What the surrogates are fitted to and judged by: test functions, the shipped problem, and an engine's tables.

Notation: U: (n, d) unit-cube points; X: the same in the problem's units; G: (n, d) derivatives of y by X.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.rows import FOLDER, ROOT, digest, sources
from surrogate_core.problems.analytic import ackley, branin, hartmann6
from surrogate_core.problems.engineering import borehole, wing_weight
from surrogate_core.problems.optics import LAYERS, mean_reflectance
from surrogate_core.problems.problem import Problem
from surrogate_core.sampling import sample
from surrogate_core.space import Float, SearchSpace

N_TEST = 2000  # fresh points
N_TIMED = 10_000  # points that are predicted against the clock
N_TIMED_SETS = 4
WARM = {20: 3, 50: 3, 200: 3, 500: 2, 2000: 1}  # n: how many fits follow the first, each to another design


def coating() -> Problem:
    """The shipped problem, of params.yaml."""
    space = SearchSpace({layer: Float(5, 150) for layer in LAYERS})
    return Problem("coating", mean_reflectance, space, {}, np.nan, "surrogate_core/problems/optics.py")


FUNCTIONS: dict[str, Callable[[], Problem]] = {
    "branin": branin,
    "ackley2": partial(ackley, 2),
    "coating": coating,
    "ackley6": partial(ackley, 6),
    "hartmann6": hartmann6,
    "borehole": borehole,
    "wing_weight": wing_weight,
    "ackley20": partial(ackley, 20),
}
ENGINE = {"b777_thrust": 0, "b777_sfc": 1}  # columns of smt's table of a Boeing 777's engine
PROBLEMS = (*FUNCTIONS, *ENGINE)


@dataclass(frozen=True)
class Design:
    """Data of one size: the first of the training designs is judged, the others are there to be timed.

    Args:
        space: of the points.
        U, y: (1 + WARM[n], n, d) and (1 + WARM[n], n).
        G: of U as its shape is, in the problem's units; None where there are none.
        U_test, y_test: fresh points.
        timed: (N_TIMED_SETS, N_TIMED, d) unit-cube points.
    """

    space: SearchSpace
    U: np.ndarray
    y: np.ndarray
    G: np.ndarray | None
    U_test: np.ndarray
    y_test: np.ndarray

    @property
    def timed(self) -> np.ndarray:
        return np.random.default_rng(1).random((N_TIMED_SETS, N_TIMED, self.space.n_dims))


def design(problem: str, n: int) -> Design:
    """The data of a problem, evaluated once and read from a file after that."""
    version = digest((sources(ROOT / "surrogate_core" / "problems") + Path(__file__).read_text()).encode())
    path = FOLDER / "designs" / f"{problem}-{n}-{version}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            made = _engine(problem, n) if problem in ENGINE else _function(problem, n)
            np.savez(file, allow_pickle=False, **made)
    with np.load(path, allow_pickle=False) as arrays:
        low, high, *data = (arrays.get(name) for name in ("low", "high", "U", "y", "G", "U_test", "y_test"))
    return Design(SearchSpace.from_bounds(list(zip(low, high, strict=True))), *data)


def _function(name: str, n: int) -> dict[str, np.ndarray]:
    problem = FUNCTIONS[name]()
    space = problem.space
    U = np.array([sample("sobol", n, space.n_dims, seed) for seed in range(1 + WARM[n])])
    U_test = sample("random", N_TEST, space.n_dims, seed=1000)
    of = {
        key: np.array([problem(space.params(x)) for x in space.decode(at.reshape(-1, space.n_dims))])
        for key, at in (("y", U), ("y_test", U_test))
    }
    low, high = space.bounds.T
    return {
        "low": low,
        "high": high,
        "U": U,
        "y": of["y"].reshape(U.shape[:2]),
        "U_test": U_test,
        "y_test": of["y_test"],
    }


def _engine(name: str, n: int) -> dict[str, np.ndarray]:
    """Random rows of the table, and all others to judge by."""
    from smt.examples.b777_engine.b777_engine import get_b777_engine

    X, Y, slopes, bounds = get_b777_engine()
    y, G = Y[:, ENGINE[name]], slopes[:, ENGINE[name]]
    low, high = bounds.T
    orders = np.array([np.random.default_rng(seed).permutation(len(X)) for seed in range(1 + WARM[n])])
    U, learned, others = (X - low) / (high - low), orders[:, :n], orders[0, n:]
    data = {"U": U[learned], "y": y[learned], "G": G[learned], "U_test": U[others], "y_test": y[others]}
    return {"low": low, "high": high, **data}
