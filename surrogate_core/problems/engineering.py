"""Engineering formulas that stand in for simulators, without constraints.

The four of the literature on computer experiments are smooth and nearly monotone: their minima lie at corners, but for
the sweep of the wing. The gear train is discrete: its minimum was found by enumeration.
"""

import numpy as np

from surrogate_core.problems.problem import Problem
from surrogate_core.space import Float, Integer, SearchSpace


def _flow(rw: float, r: float, Tu: float, Hu: float, Tl: float, Hl: float, L: float, Kw: float) -> float:
    spread = np.log(r / rw)
    return 2 * np.pi * Tu * (Hu - Hl) / (spread * (1 + 2 * L * Tu / (spread * rw**2 * Kw) + Tu / Tl))


def borehole() -> Problem:
    """Flow of water through a borehole between two aquifers, in m3 a year."""
    space = SearchSpace(
        {
            "rw": Float(0.05, 0.15),  # radius of the borehole, m
            "r": Float(100, 50_000),  # radius of influence, m
            "Tu": Float(63_070, 115_600),  # transmissivity of the upper aquifer, m2 a year
            "Hu": Float(990, 1110),  # its potentiometric head, m
            "Tl": Float(63.1, 116),  # the same of the lower one
            "Hl": Float(700, 820),
            "L": Float(1120, 1680),  # length of the borehole, m
            "Kw": Float(9855, 12_045),  # hydraulic conductivity, m a year
        }
    )
    minimizer = {"rw": 0.05, "r": 50_000, "Tu": 63_070, "Hu": 990, "Tl": 63.1, "Hl": 820, "L": 1680, "Kw": 9855}
    source = "Harper & Gupta (1983), BMI/ONWI-516; bounds of Morris, Mitchell & Ylvisaker (1993), Technometrics 35, 243"
    return Problem("borehole", _flow, space, minimizer, 7.819676328755232, source)


def _weight(
    Sw: float,
    Wfw: float,
    A: float,
    sweep: float,
    q: float,
    taper: float,
    tc: float,
    Nz: float,
    Wdg: float,
    Wp: float,
) -> float:
    cosine = np.cos(np.deg2rad(sweep))
    shape = (A / cosine**2) ** 0.6 * q**0.006 * taper**0.04 * (100 * tc / cosine) ** -0.3
    return 0.036 * Sw**0.758 * Wfw**0.0035 * shape * (Nz * Wdg) ** 0.49 + Sw * Wp


def wing_weight() -> Problem:
    """Weight of the wing of a light aircraft, in pounds."""
    space = SearchSpace(
        {
            "Sw": Float(150, 200),  # area, ft2
            "Wfw": Float(220, 300),  # weight of fuel in the wing, lb
            "A": Float(6, 10),  # aspect ratio
            "sweep": Float(-10, 10),  # of the quarter chord, degrees
            "q": Float(16, 45),  # dynamic pressure at cruise, lb/ft2
            "taper": Float(0.5, 1),
            "tc": Float(0.08, 0.18),  # thickness over chord
            "Nz": Float(2.5, 6),  # ultimate load factor
            "Wdg": Float(1700, 2500),  # design gross weight, lb
            "Wp": Float(0.025, 0.08),  # paint, lb/ft2
        }
    )
    minimizer = {"Sw": 150, "Wfw": 220, "A": 6, "sweep": 0, "q": 16, "taper": 0.5, "tc": 0.18, "Nz": 2.5, "Wdg": 1700}
    source = "Forrester, Sobester & Keane (2008), Engineering Design via Surrogate Modelling, sec. 1.2, after Raymer"
    return Problem("wing_weight", _weight, space, {**minimizer, "Wp": 0.025}, 123.25367170091783, source)


def _midpoint_voltage(Rb1: float, Rb2: float, Rf: float, Rc1: float, Rc2: float, beta: float) -> float:
    Vb1 = 12 * Rb2 / (Rb1 + Rb2)
    load = beta * (Rc2 + 9)
    return (Vb1 + 0.74) * load / (load + Rf) + 11.35 * Rf / (load + Rf) + 0.74 * Rf * load / ((load + Rf) * Rc1)


def otl_circuit() -> Problem:
    """Midpoint voltage of an output transformerless push-pull circuit, in V."""
    space = SearchSpace(
        {
            "Rb1": Float(50, 150),  # resistances, kOhm
            "Rb2": Float(25, 70),
            "Rf": Float(0.5, 3),
            "Rc1": Float(1.2, 2.5),
            "Rc2": Float(0.25, 1.2),
            "beta": Float(50, 300),  # current gain, A
        }
    )
    minimizer = {"Rb1": 150, "Rb2": 25, "Rf": 0.5, "Rc1": 2.5, "Rc2": 1.2, "beta": 300}
    source = "Ben-Ari & Steinberg (2007), Quality Engineering 19, 327"
    return Problem("otl_circuit", _midpoint_voltage, space, minimizer, 2.60371484584685, source)


def _cycle_time(M: float, S: float, V0: float, k: float, P0: float, Ta: float, T0: float) -> float:
    A = P0 * S + 19.62 * M - k * V0 / S
    V = S / (2 * k) * (np.sqrt(A**2 + 4 * k * P0 * V0 / T0 * Ta) - A)
    return 2 * np.pi * np.sqrt(M / (k + S**2 * P0 * V0 / T0 * Ta / V**2))


def piston() -> Problem:
    """Cycle time of a piston in a cylinder, in s."""
    space = SearchSpace(
        {
            "M": Float(30, 60),  # weight, kg
            "S": Float(0.005, 0.020),  # surface, m2
            "V0": Float(0.002, 0.010),  # initial volume of the gas, m3
            "k": Float(1000, 5000),  # spring, N/m
            "P0": Float(90_000, 110_000),  # atmospheric pressure, N/m2
            "Ta": Float(290, 296),  # ambient temperature, K
            "T0": Float(340, 360),  # filling gas temperature, K
        }
    )
    minimizer = {"M": 30, "S": 0.02, "V0": 0.002, "k": 5000, "P0": 110_000, "Ta": 290, "T0": 360}
    source = "Kenett & Zacks (1998), Modern Industrial Statistics; Ben-Ari & Steinberg (2007), eq. 15"
    return Problem("piston", _cycle_time, space, minimizer, 0.16422884916253186, source)


def _ratio_error(z1: int, z2: int, z3: int, z4: int) -> float:
    return (1 / 6.931 - z1 * z2 / (z3 * z4)) ** 2


def gear_train() -> Problem:
    """Squared error of the ratio of a compound gear train against 1/6.931, by the teeth of its four wheels."""
    space = SearchSpace({name: Integer(12, 60) for name in ("z1", "z2", "z3", "z4")})
    source = "Sandgren (1990), J. Mech. Des. 112(2), 223, example 1"
    minimizer = {"z1": 16, "z2": 19, "z3": 43, "z4": 49}
    return Problem("gear_train", _ratio_error, space, minimizer, 2.7008571488865134e-12, source)
