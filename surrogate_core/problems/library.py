"""All problems that can be asked for by name."""

from collections.abc import Callable, Mapping

from surrogate_core.problems import analytic, engineering, learning, structures
from surrogate_core.problems.problem import Problem

PROBLEMS: Mapping[str, Callable[[], Problem]] = {
    make.__name__: make
    for make in (
        analytic.sphere,
        analytic.rosenbrock,
        analytic.rastrigin,
        analytic.ackley,
        analytic.griewank,
        analytic.schwefel,
        analytic.levy,
        analytic.branin,
        analytic.hartmann3,
        analytic.hartmann6,
        structures.pressure_vessel,
        structures.welded_beam,
        structures.spring,
        engineering.gear_train,
        engineering.borehole,
        engineering.wing_weight,
        engineering.otl_circuit,
        engineering.piston,
        learning.svr_diabetes,
    )
}
