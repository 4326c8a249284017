"""All problems that can be asked for by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

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


@dataclass(frozen=True)
class LibraryProblem:
    """A problem as a black box: it travels to worker processes as its name.

    Args:
        name: one of `PROBLEMS`.
        shift: the seed of `Problem.shifted`; None for the problem as its source has it.
    """

    name: str
    shift: int | None = None

    @property
    def problem(self) -> Problem:
        return _made(self.name, self.shift)

    def check(self) -> None:
        """Nothing can be wrong with it."""

    def __call__(self, params: Mapping[str, Any]) -> float:
        return self.problem(params)


@cache
def _made(name: str, shift: int | None) -> Problem:
    problem = PROBLEMS[name]()
    return problem if shift is None else problem.shifted(shift)
