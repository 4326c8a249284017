"""The specs of search spaces: nested at will, with conditional branches, as params.yaml holds them.

A spec is a mapping from names to what they may be:

    learning_rate: {type: loguniform, low: 1.0e-4, high: 0.1}
    dropout: {type: float, low: 0, high: 0.5, step: 0.05}
    layers: {type: int, low: 1, high: 8, log: true}
    hidden: {type: categorical, values: [[32, 32], [64]]}
    n_starts: {type: grid, values: [4, 8, 16]}          # short: [4, 8, 16]
    seed: {type: fixed, value: 0}                       # short: 0
    output: {scale: [1, 10], centred: true}             # a mapping without a type is a space of its own
    kind:                                               # the branch that is taken is the value of `kind`,
      type: branches                                    # and the names of its own space stand beside it
      branches:
        network: {width: {type: int, low: 8, high: 64}}
        forest: {}

A grid of numbers is ordered, which samplers make use of; of a categorical they learn each value by itself. A float with
a step has the decimals of the step and of low: 0.1 and two steps of 0.1 are 0.3; high need not be on a step. Names are
texts without `.`, `=` and `/`, as samplers know the names above as `output.scale` and `kind=network/width`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

from surrogate_core.tuning.identity import trial_key
from surrogate_core.tuning.parameters import BRANCH, Ask, Fixed, Leaf, Params
from surrogate_core.tuning.spec import parse_space

VERY_LARGE = 10**6
"""Designs from which a space, or MANY parameters, count as very large."""
MANY = 20


def expand_parameters(spec: Mapping[str, Any]) -> Iterator[Params]:
    """All designs of a finite space, lazily, the last name changing fastest.

    Raises:
        ValueError: the spec is not as it should be, or a parameter is continuous.
    """
    return TuningSpace(spec).expand()


def estimate_search_space(spec: Mapping[str, Any], n_trials: int | None = None) -> Estimate:
    """How many designs there are, or that a space is continuous.

    Args:
        spec: of the space.
        n_trials: asked for; a UserWarning says so where there are fewer designs.

    Raises:
        ValueError: the spec is not as it should be.
    """
    estimate = TuningSpace(spec).estimate
    if n_trials is not None and (told := estimate.too_small_for(n_trials)):
        warnings.warn(told, stacklevel=2)
    return estimate


@dataclass(frozen=True)
class Estimate:
    """The size of a space.

    Attributes:
        n_designs: how many there are; infinite where a parameter is continuous.
        n_parameters: that a sampler proposes, those of all branches.
        continuous: names of those that are continuous.
    """

    n_designs: float
    n_parameters: int
    continuous: tuple[str, ...]

    @property
    def kind(self) -> Literal["discrete", "continuous", "very large"]:
        """By which workers are advised."""
        if self.n_parameters >= MANY or VERY_LARGE <= self.n_designs < math.inf:
            return "very large"
        return "continuous" if self.continuous else "discrete"

    @property
    def workers(self) -> tuple[int, int]:
        """The least and the greatest number of trials at a time that a sampler can do with.

        More at a time are proposed knowing less: soon a small discrete space is a matter of chance.
        """
        return {"discrete": (2, 4), "continuous": (4, 8), "very large": (8, 16)}[self.kind]

    def too_small_for(self, n_trials: int) -> str:
        """A warning, "" where there are designs enough."""
        if self.n_designs >= n_trials:
            return ""
        are = "is" if self.n_designs == 1 else "are"
        return f"space: {self} {are} fewer than the {n_trials} trials asked for: each is tried once"

    def __str__(self) -> str:
        if self.continuous:
            return f"continuous in {', '.join(self.continuous[:3])}{', ...' * (len(self.continuous) > 3)}"
        exact = self.n_designs < 10**12
        return f"{self.n_designs if exact else f'{Decimal(self.n_designs):.2e}'} design{'s' * (self.n_designs != 1)}"


class TuningSpace:
    """A spec that has been checked.

    Args:
        spec: see the module; it may not be changed afterwards.
        path: where it stands, for messages.

    Attributes:
        key: equal for equal specs.

    Raises:
        ValueError: the spec is not as it should be; the message names the path.
    """

    def __init__(self, spec: Mapping[str, Any], path: str = "space") -> None:
        self._path = path
        try:
            self._tree = parse_space(spec, path)
            self.key = trial_key(spec)
        except RecursionError:
            raise ValueError(f"{path}: expected spaces nested less deeply, and not in themselves, got such") from None
        if not self._tree.nodes:
            raise ValueError(f"{path}: expected at least one name, got none")

    @cached_property
    def estimate(self) -> Estimate:
        continuous = tuple(name for name, leaf in self.leaves.items() if leaf.size == math.inf)
        return Estimate(self._tree.size, len(self.leaves), continuous)

    @cached_property
    def leaves(self) -> dict[str, Leaf]:
        """What is proposed, by the names that samplers know; those of branches say which."""
        return {name: leaf for name, leaf in self._tree.leaves("") if not isinstance(leaf, Fixed)}

    @cached_property
    def precision(self) -> int:
        """Decimals by which designs are told apart: ten, up to 300 where the space has values that differ by less."""
        return max([10, *(leaf.decimals for leaf in self.leaves.values())])

    @cached_property
    def has_branches(self) -> bool:
        """Whether what is asked for depends on a branch."""
        return any(BRANCH in name for name in self.leaves)

    def expand(self) -> Iterator[Params]:
        """All designs of a finite space, lazily."""
        if self.estimate.continuous:
            name = f"{self._path}.{self.estimate.continuous[0]}"
            raise ValueError(f"{name}: expected a grid, an int or a float with a step, got a continuous range")
        return map(self._tree.design, range(int(self._tree.size)))

    def propose(self, ask: Ask) -> Params:
        """The design that raw values make, each asked for in turn; those of branches not taken are not asked for."""
        return self._tree.propose(ask, "")

    def raw(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The raw values that make a design, by the names that samplers know.

        Raises:
            ValueError: it is none of the space.
        """
        known: dict[str, Any] = {}
        self._tree.raw_of_all(params, "", known)
        return known

    def labels(self, params: Mapping[str, Any]) -> Params:
        """A design in one row: the values by the names that samplers know."""
        return {name: self.leaves[name].value(raw) for name, raw in self.raw(params).items()}
