"""Analytic test functions of optimization, with the bounds and optima of their sources.

Bounds and formulas follow S. Surjanovic & D. Bingham, Virtual Library of Simulation Experiments (2013), which names
the original papers; each problem repeats its own.
"""

from collections.abc import Callable

import numpy as np

from surrogate_core.problems.problem import Problem
from surrogate_core.space import Float, SearchSpace


def _problem(
    name: str,
    of_x: Callable[[np.ndarray], float],
    bounds: list[tuple[float, float]],
    minimizer: list[float],
    minimum: float,
    source: str,
) -> Problem:
    names = [f"x{i + 1}" for i in range(len(bounds))]

    def function(**params: float) -> float:
        return float(of_x(np.array([params[name] for name in names])))

    space = SearchSpace({name: Float(low, high) for name, (low, high) in zip(names, bounds, strict=True)})
    return Problem(name, function, space, dict(zip(names, minimizer, strict=True)), minimum, source)


def sphere(d: int = 4) -> Problem:
    """Sum of squares: convex and isotropic."""
    return _problem(
        "sphere", lambda x: np.sum(x**2), [(-5.12, 5.12)] * d, [0.0] * d, 0.0, "De Jong (1975), PhD thesis, F1"
    )


def rosenbrock(d: int = 4) -> Problem:
    """A curved valley: easy to enter, slow to follow."""

    def of_x(x: np.ndarray) -> float:
        return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (x[:-1] - 1) ** 2)

    source = "Rosenbrock (1960), Comput. J. 3(3), 175, generalized to d >= 2"
    return _problem("rosenbrock", of_x, [(-5.0, 10.0)] * d, [1.0] * d, 0.0, source)


def rastrigin(d: int = 4) -> Problem:
    """A bowl with a regular grid of local minima."""

    def of_x(x: np.ndarray) -> float:
        return 10 * len(x) + np.sum(x**2 - 10 * np.cos(2 * np.pi * x))

    source = "Rastrigin (1974), Systems of Extremal Control"
    return _problem("rastrigin", of_x, [(-5.12, 5.12)] * d, [0.0] * d, 0.0, source)


def ackley(d: int = 4) -> Problem:
    """Nearly flat, rippled, with a deep hole."""

    def of_x(x: np.ndarray) -> float:
        radius, ripple = np.sqrt(np.mean(x**2)), np.mean(np.cos(2 * np.pi * x))
        return 20 - 20 * np.exp(-0.2 * radius) + np.e - np.exp(ripple)

    source = "Ackley (1987), A Connectionist Machine for Genetic Hillclimbing; a = 20, b = 0.2, c = 2 pi"
    return _problem("ackley", of_x, [(-32.768, 32.768)] * d, [0.0] * d, 0.0, source)


def griewank(d: int = 4) -> Problem:
    """A wide bowl with many shallow local minima."""

    def of_x(x: np.ndarray) -> float:
        return np.sum(x**2) / 4000 - np.prod(np.cos(x / np.sqrt(np.arange(1, len(x) + 1)))) + 1

    return _problem("griewank", of_x, [(-600.0, 600.0)] * d, [0.0] * d, 0.0, "Griewank (1981), JOTA 34(1), 11")


def schwefel(d: int = 4) -> Problem:
    """The best minimum lies far from the second best, near a corner."""

    def of_x(x: np.ndarray) -> float:
        return 418.9828872724337 * len(x) - np.sum(x * np.sin(np.sqrt(np.abs(x))))

    source = "Schwefel (1981), Numerical Optimization of Computer Models, problem 2.26"
    return _problem("schwefel", of_x, [(-500.0, 500.0)] * d, [420.968746359982] * d, 0.0, source)


def levy(d: int = 4) -> Problem:
    """Rippled, with its minimum away from the centre."""

    def of_x(x: np.ndarray) -> float:
        w = 1 + (x - 1) / 4
        middle = np.sum((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2))
        return np.sin(np.pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)

    source = "Laguna & Marti (2005), J. Global Optim. 33, 235, after Levy & Montalvo (1985)"
    return _problem("levy", of_x, [(-10.0, 10.0)] * d, [1.0] * d, 0.0, source)


def branin() -> Problem:
    """Three equal minima in two dimensions."""

    def of_x(x: np.ndarray) -> float:
        a, b = x
        valley = b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6
        return valley**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10

    source = "Branin (1972), IBM J. Res. Dev. 16(5), 504; Dixon & Szego (1978)"
    return _problem("branin", of_x, [(-5.0, 10.0), (0.0, 15.0)], [np.pi, 2.275], 0.39788735772973816, source)


_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
_A3 = np.array([[3.0, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
_P3 = 1e-4 * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]])
_A6 = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_P6 = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def _hartmann(name: str, A: np.ndarray, P: np.ndarray, minimizer: list[float], minimum: float) -> Problem:
    def of_x(x: np.ndarray) -> float:
        return -_ALPHA @ np.exp(-np.sum(A * (x - P) ** 2, axis=1))

    source = "Hartman (1973); Dixon & Szego (1978), Towards Global Optimization 2"
    return _problem(name, of_x, [(0.0, 1.0)] * A.shape[1], minimizer, minimum, source)


def hartmann3() -> Problem:
    """Four local minima in three dimensions."""
    return _hartmann("hartmann3", _A3, _P3, [0.11458888, 0.55564890, 0.85254697], -3.862779787332663)


def hartmann6() -> Problem:
    """Six local minima in six dimensions."""
    minimizer = [0.20168951, 0.15001069, 0.47687397, 0.27533243, 0.31165162, 0.65730053]
    return _hartmann("hartmann6", _A6, _P6, minimizer, -3.322368011415515)
