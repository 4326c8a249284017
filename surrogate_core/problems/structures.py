"""Machine design with known constraints: three problems of the literature, whose best designs lie where several meet.

The minimizers are the literature's, followed to the digits given by SLSQP, a little inside of what they meet.
"""

import numpy as np

from surrogate_core.problems.problem import Problem
from surrogate_core.space import Float, SearchSpace


def _vessel_cost(Ts: float, Th: float, R: float, L: float) -> float:
    return 0.6224 * Ts * R * L + 1.7781 * Th * R**2 + 3.1661 * Ts**2 * L + 19.84 * Ts**2 * R


def pressure_vessel() -> Problem:
    """Cost of a cylindrical vessel with hemispherical heads, of rolled plate in sixteenths of an inch, in dollars."""
    space = SearchSpace(
        {
            "Ts": Float(0.0625, 6.1875, step=0.0625),  # thickness of the shell, in
            "Th": Float(0.0625, 6.1875, step=0.0625),  # of the heads
            "R": Float(10, 200),  # inner radius
            "L": Float(10, 200),  # length of the cylinder
        },
        ["0.0193 * R <= Ts", "0.00954 * R <= Th", "pi * R**2 * L + 4 / 3 * pi * R**3 >= 1296000"],
    )
    minimizer = {"Ts": 0.8125, "Th": 0.4375, "R": 42.09844559585492, "L": 176.636595842441}
    source = "Sandgren (1990), J. Mech. Des. 112(2), 223, example 4; bounds of Coello (2000), Comput. Ind. 41, 113"
    return Problem("pressure_vessel", _vessel_cost, space, minimizer, 6059.714335048, source)


def _beam_cost(h: float, l: float, t: float, b: float) -> float:
    return 1.10471 * h**2 * l + 0.04811 * t * b * (14 + l)


def welded_beam_constraints(h: float, l: float, t: float, b: float) -> list[float]:
    """Shear and bending stress, deflection and buckling load of the beam, each relative to its limit less 1."""
    P, L, E, G = 6000.0, 14.0, 30e6, 12e6  # load, lb; overhang, in; moduli of steel, psi
    arm = np.sqrt(l**2 / 4 + ((h + t) / 2) ** 2)
    J = 2 * np.sqrt(2) * h * l * (l**2 / 12 + ((h + t) / 2) ** 2)
    primary, secondary = P / (np.sqrt(2) * h * l), P * (L + l / 2) * arm / J
    shear = np.sqrt(primary**2 + primary * secondary * l / arm + secondary**2)
    bending, deflection = 6 * P * L / (b * t**2), 4 * P * L**3 / (E * t**3 * b)
    buckling = 4.013 * E * np.sqrt(t**2 * b**6 / 36) / L**2 * (1 - t / (2 * L) * np.sqrt(E / (4 * G)))
    return [shear / 13_600 - 1, bending / 30_000 - 1, deflection / 0.25 - 1, 1 - buckling / P]


def welded_beam() -> Problem:
    """Cost of welding a beam to a wall so that it carries a load at its end, in dollars."""
    space = SearchSpace(
        {
            "h": Float(0.125, 2),  # thickness of the weld, in
            "l": Float(0.1, 10),  # its length
            "t": Float(0.1, 10),  # depth of the beam
            "b": Float(0.1, 2),  # its width
        },
        [
            "h <= b",
            "0.10471 * h**2 + 0.04811 * t * b * (14 + l) <= 5",
            f"{__name__}:{welded_beam_constraints.__name__}",
        ],
    )
    minimizer = {"h": 0.20572963978598535, "l": 3.470488665630394, "t": 9.036623910357537, "b": 0.20572963978608502}
    source = "Ragsdell & Phillips (1976), J. Eng. Ind. 98, 1021; constraints of Coello (2000), Comput. Ind. 41, 113"
    return Problem("welded_beam", _beam_cost, space, minimizer, 1.724852308597, source)


def _spring_weight(d: float, D: float, N: float) -> float:
    return (N + 2) * D * d**2


def spring() -> Problem:
    """Weight of a coil spring under tension or compression, of steel, up to a factor."""
    space = SearchSpace(
        {
            "d": Float(0.05, 2),  # diameter of the wire, in
            "D": Float(0.25, 1.3),  # of the coil
            "N": Float(2, 15),  # active coils
        },
        [
            "D**3 * N >= 71785 * d**4",  # deflection
            "(4 * D**2 - d * D) / (12566 * (D * d**3 - d**4)) + 1 / (5108 * d**2) <= 1",  # shear stress
            "140.45 * d >= D**2 * N",  # surge frequency
            "d + D <= 1.5",  # outer diameter
        ],
    )
    minimizer = {"d": 0.051689059608606654, "D": 0.35671770433506195, "N": 11.28896783078294}
    source = "Arora (1989), Introduction to Optimum Design; Belegundu & Arora (1985), Int. J. Num. Meth. Eng. 21, 1583"
    return Problem("spring", _spring_weight, space, minimizer, 0.012665232788, source)
