"""A problem to try things on: a black box that knows its space, its optimum and its source."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from surrogate_core.space import Float, SearchSpace

LARGEST_CUT = 0.2  # of a side, at either end


@dataclass(frozen=True)
class Problem:
    """A function to be minimized over a space, with the best that is known of it.

    Args:
        name: by which it is asked for.
        function: called with one keyword a variable.
        space: its variables and known constraints.
        minimizer: parameters at which the least value is taken; one of them, where there are several.
        minimum: the least value: exact, or the best known, to the digits given.
        source: paper or book, and equation or table.
    """

    name: str
    function: Callable[..., float]
    space: SearchSpace
    minimizer: Mapping[str, float]
    minimum: float
    source: str

    def __call__(self, params: Mapping[str, Any]) -> float:
        return float(self.function(**params))

    def shifted(self, seed: int) -> "Problem":
        """The same function in a box that is cut at both ends of each side, at random, with the minimizer inside.

        Many test functions have their minimum in the centre of the box, where grids and some designs put a point.

        Raises:
            ValueError: a variable is not a plain real one, which alone can be cut anywhere.
        """
        rng = np.random.default_rng(seed)
        cut = {}
        for name, variable in zip(self.space.names, self.space.variables, strict=True):
            if not isinstance(variable, Float) or variable.log or variable.step:
                raise ValueError(f"shift: expected real variables without steps or logarithm, got {name}: {variable}")
            room = np.array([self.minimizer[name] - variable.low, variable.high - self.minimizer[name]])
            low, high = rng.uniform(0, np.minimum(0.9 * room, LARGEST_CUT * (variable.high - variable.low)))
            cut[name] = replace(variable, low=variable.low + low, high=variable.high - high)
        return replace(self, name=f"{self.name}-shifted-{seed}", space=SearchSpace(cut, self.space.constraints))
