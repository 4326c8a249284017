"""What a name in a search space may be: a value, one of several, a number, a space of its own, or a branch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property, lru_cache
from reprlib import repr as shown
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from surrogate_core.tuning.identity import FINEST, param_signature, trial_key
from surrogate_core.tuning.merge import copied

Params = dict[str, Any]
Ask = Callable[[str, BaseDistribution], Any]
"""Given the name of a parameter and what it is distributed over, the raw value that is proposed."""
BRANCH = "/"  # between a branch and the names in it, in the names that samplers know: kind=network/width


class Node(ABC):
    """What a name may be. A fragment is what it adds to a design: its key with a value, and more of a branch."""

    @property
    @abstractmethod
    def size(self) -> float:
        """How many fragments there are: a whole number, or infinity."""

    @abstractmethod
    def leaves(self, name: str) -> Iterator[tuple[str, Leaf]]:
        """What is chosen here and below, by name."""

    @abstractmethod
    def nth(self, place: int, key: str) -> Params:
        """The fragment at a place, of those that can be counted."""

    @abstractmethod
    def fragment(self, ask: Ask, key: str, name: str) -> Params:
        """The fragment of one proposal."""

    @abstractmethod
    def take(self, params: Mapping[str, Any], key: str, name: str, known: dict[str, Any]) -> set[str]:
        """Puts down the raw values that make a design's fragment, and says which keys that has.

        Raises:
            ValueError: it is none of this.
        """

    def keys(self, key: str) -> set[str]:
        """Those that any fragment has."""
        return {key}


class Leaf(Node):
    """One value, which a sampler proposes as a raw one that it can learn from.

    Attributes:
        distribution: of the raw value.
        expected: what a value is, in words.
    """

    distribution: BaseDistribution
    expected: str

    @abstractmethod
    def value(self, raw: Any) -> Any: ...

    @abstractmethod
    def raw_of(self, value: Any) -> Any:
        """The raw value; None where there is none."""

    @abstractmethod
    def value_at(self, place: int) -> Any: ...

    @property
    def decimals(self) -> int:
        """That it takes to tell values apart."""
        return 0

    def leaves(self, name: str) -> Iterator[tuple[str, Leaf]]:
        yield name, self

    def nth(self, place: int, key: str) -> Params:
        return {key: self.value_at(place)}

    def fragment(self, ask: Ask, key: str, name: str) -> Params:
        return {key: self.value(ask(name, self.distribution))}

    def take(self, params: Mapping[str, Any], key: str, name: str, known: dict[str, Any]) -> set[str]:
        if key not in params:
            raise ValueError(f"{name}: expected {self.expected}, got none")
        known[name] = self.raw_of(params[key])
        if known[name] is None:
            raise ValueError(f"{name}: expected {self.expected}, got {shown(params[key])}")
        return {key}


class Fixed(Leaf):
    """A value that is never asked for."""

    def __init__(self, value: Any) -> None:
        self._value, self.expected = value, shown(value)

    @property
    def size(self) -> float:
        return 1

    def value(self, raw: Any = None) -> Any:
        return copied(self._value)

    def raw_of(self, value: Any) -> Any:
        return 0 if trial_key(value) == trial_key(self._value) else None

    def value_at(self, place: int) -> Any:
        return self.value()

    def fragment(self, ask: Ask, key: str, name: str) -> Params:
        return {key: self.value()}

    def take(self, params: Mapping[str, Any], key: str, name: str, known: dict[str, Any]) -> set[str]:
        taken = super().take(params, key, name, known)
        del known[name]
        return taken


class Listed(Leaf):
    """One of some values, known to samplers by its place: numbers in their order, so that neighbours are alike."""

    def __init__(self, values: Sequence[Any], ordered: bool) -> None:
        self._given, n = list(values), len(values)
        self._values = sorted(values) if ordered else self._given
        self._places = {trial_key(value): place for place, value in enumerate(self._values)}
        self.distribution = IntDistribution(0, n - 1) if ordered else CategoricalDistribution(tuple(range(n)))
        self.expected = f"one of {shown(self._given)}"

    @property
    def size(self) -> float:
        return len(self._given)

    @cached_property
    def decimals(self) -> int:
        def are_told(decimals: int) -> bool:
            return len({param_signature(value, decimals) for value in self._given}) == len(self._given)

        return next((decimals for decimals in range(10, FINEST) if are_told(decimals)), FINEST)

    def value(self, raw: Any) -> Any:
        return copied(self._values[raw])

    def raw_of(self, value: Any) -> Any:
        return self._places.get(trial_key(value))

    def value_at(self, place: int) -> Any:
        return copied(self._given[place])


class Continuous(Leaf):
    """Any number from low to high."""

    def __init__(self, low: float, high: float, log: bool) -> None:
        self._low, self._high, self._log = low, high, log
        self.distribution = FloatDistribution(low, high, log=log)
        self.expected = f"a number from {low!r} to {high!r}"

    @property
    def size(self) -> float:
        return 1 if self._low == self._high else math.inf

    @property
    def decimals(self) -> int:
        """Of a width, or of the lowest number of a logarithm, eight digits."""
        width = self._high - self._low or 1.0
        return min(8 - math.floor(math.log10(min(width, self._low) if self._log else width)), FINEST)

    def value(self, raw: Any) -> Any:
        return float(raw)

    def raw_of(self, value: Any) -> Any:
        number = _number(value)
        return float(number) if number is not None and self._low <= number <= self._high else None

    def value_at(self, place: int) -> Any:
        return self._low


class Stepped(Leaf):
    """Numbers some steps from low, known to samplers by how many; of a logarithm any number, which goes to the nearest.

    Args:
        low, high, step: all integers, or all floats; high need not be on a step.
        log: whether samplers go by the logarithm.
    """

    def __init__(self, low: float, high: float, step: float, log: bool) -> None:
        self._low, self._high, self._step, self._log = low, high, step, log
        self._is_whole = isinstance(step, int)
        self._digits = 0 if self._is_whole else max(step_decimals(step), step_decimals(low))
        # As they are written: 0.3 is three steps of 0.1. What lacks a billionth of a step is an error of rounding.
        exactly = [Fraction(str(number)) for number in (low, high, step)]
        self._n = math.floor((exactly[1] - exactly[0]) / exactly[2] + Fraction(1, 10**9)) + 1
        if not log:
            self.distribution = IntDistribution(0, self._n - 1)
        elif self._is_whole:
            self.distribution = IntDistribution(int(low), int(high), log=True)
        else:
            self.distribution = FloatDistribution(low, high, log=True)
        kind = "an integer" if self._is_whole else "a number"
        steps = "" if self._is_whole and step == 1 else f" in steps of {step!r}"
        self.expected = f"{kind} from {low!r} to {self.value_at(self._n - 1)!r}{steps}"

    @property
    def size(self) -> float:
        return self._n

    @property
    def decimals(self) -> int:
        return self._digits

    def value(self, raw: Any) -> Any:
        return self.value_at(min(round((raw - self._low) / self._step), self._n - 1) if self._log else raw)

    def raw_of(self, value: Any) -> Any:
        number = _number(value)
        if number is None or not self._low - self._step < number < self._high + self._step:
            return None
        place = round((number - self._low) / self._step)
        if not 0 <= place < self._n:
            return None
        nearest = self.value_at(place)
        if abs(number - nearest) > (0 if self._is_whole else 1e-6 * self._step + 2 * math.ulp(nearest)):
            return None
        return min(nearest, self._high) if self._log else place

    def value_at(self, place: int) -> Any:
        value = self._low + place * self._step
        return value if self._is_whole else round(value, self._digits) + 0.0  # no zero has a sign


class Branches(Node):
    """One of some spaces; a design has the names of the one that is chosen beside that of the choice."""

    def __init__(self, sections: Mapping[Any, Section]) -> None:
        branches = list(sections)
        self.sections = sections
        self._choice = Listed(branches, ordered=False) if len(branches) > 1 else Fixed(branches[0])

    @cached_property
    def size(self) -> float:
        sizes = [section.size for section in self.sections.values()]
        return math.inf if math.inf in sizes else sum(sizes)

    def leaves(self, name: str) -> Iterator[tuple[str, Leaf]]:
        yield name, self._choice
        for branch, section in self.sections.items():
            yield from section.leaves(_below(name, branch))

    def nth(self, place: int, key: str) -> Params:
        for branch, section in self.sections.items():
            if place < section.size:
                return {key: branch, **section.design(place)}
            place -= int(section.size)
        raise IndexError

    def fragment(self, ask: Ask, key: str, name: str) -> Params:
        chosen = self._choice.fragment(ask, key, name)
        return chosen | self.sections[chosen[key]].propose(ask, _below(name, chosen[key]))

    def take(self, params: Mapping[str, Any], key: str, name: str, known: dict[str, Any]) -> set[str]:
        taken = self._choice.take(params, key, name, known)
        branch = params[key]
        return taken | self.sections[branch].raw(params, _below(name, branch), known)

    def keys(self, key: str) -> set[str]:
        return {key}.union(*(section.names for section in self.sections.values()))


class Section(Node):
    """A space of its own."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes

    @property
    def names(self) -> set[str]:
        """Those that its designs may have."""
        return set().union(*(node.keys(key) for key, node in self.nodes.items()))

    @cached_property
    def size(self) -> float:
        sizes = [node.size for node in self.nodes.values()]
        return math.inf if math.inf in sizes else math.prod(sizes)

    def leaves(self, name: str) -> Iterator[tuple[str, Leaf]]:
        for key, node in self.nodes.items():
            yield from node.leaves(_inner(name, key))

    def design(self, place: int) -> Params:
        """The design at a place, of those that can be counted; the last name changes fastest."""
        fragments = []
        for key, node in reversed(list(self.nodes.items())):
            place, of_node = divmod(place, int(node.size))
            fragments.append(node.nth(of_node, key))
        params: Params = {}
        for fragment in reversed(fragments):
            params |= fragment
        return params

    def nth(self, place: int, key: str) -> Params:
        return {key: self.design(place)}

    def propose(self, ask: Ask, name: str) -> Params:
        """The design of one proposal."""
        params: Params = {}
        for key, node in self.nodes.items():
            params |= node.fragment(ask, key, _inner(name, key))
        return params

    def fragment(self, ask: Ask, key: str, name: str) -> Params:
        return {key: self.propose(ask, name)}

    def raw(self, params: Mapping[str, Any], name: str, known: dict[str, Any]) -> set[str]:
        """Puts down the raw values that make a design, and says which of its keys are those of this space."""
        return set().union(*(node.take(params, key, _inner(name, key), known) for key, node in self.nodes.items()))

    def raw_of_all(self, params: Mapping[str, Any], name: str, known: dict[str, Any]) -> None:
        """The same of a design that has no other keys.

        Raises:
            ValueError: it has.
        """
        if others := params.keys() - self.raw(params, name, known):
            raise ValueError(f"{_inner(name, min(map(str, others)))}: expected no such name in the space, got one")

    def take(self, params: Mapping[str, Any], key: str, name: str, known: dict[str, Any]) -> set[str]:
        if not isinstance(params.get(key), Mapping):
            raise ValueError(f"{name}: expected a mapping, got {shown(params[key]) if key in params else 'none'}")
        self.raw_of_all(params[key], name, known)
        return {key}


def _inner(name: str, key: str) -> str:
    return f"{name}.{key}" if name and not name.endswith(BRANCH) else f"{name}{key}"


def _below(name: str, branch: Any) -> str:
    return f"{name}={branch}{BRANCH}"


def _number(value: Any) -> float | None:
    """A number, numpy's as Python's; None if it is none."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def round_to_step(value: float, step: float) -> float:
    """A value rounded to the decimals of a step: 0.1 + 0.2 in steps of 0.1 is 0.3."""
    return round(value, step_decimals(step)) + 0.0  # no zero has a sign


def step_decimals(step: float) -> int:
    """The decimals that a step has when it is written down: 2 for 0.05."""
    known = _DECIMALS.get(step)
    return _decimals(step) if known is None else known


_DECIMALS = {float(f"{digits}e-{decimals}"): decimals for digits in (1, 2, 5, 25) for decimals in range(10)}
"""Of common steps."""


@lru_cache(maxsize=1024)
def _decimals(step: float) -> int:
    mantissa, _, exponent = repr(float(step)).partition("e")
    return max(0, len(mantissa.partition(".")[2].rstrip("0")) - int(exponent or 0))
