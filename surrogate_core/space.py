"""The search space: named variables in the problem's own units, and their encoding to and from the unit cube.

Notation: X: (n, d) in the problem's units; U: (n, d) in [0, 1]. A stepped variable with m levels owns m equal bins of
the unit interval, so that every level is equally likely to be sampled, and encodes to the middle of its bin.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True)
class _Variable(ABC):
    """One dimension of a search space, monotone from [0, 1] to its values."""

    kind: ClassVar[str]

    @abstractmethod
    def encode(self, x: np.ndarray) -> np.ndarray:
        """Unit-interval coordinates of values in the problem's units."""

    @abstractmethod
    def decode(self, u: np.ndarray) -> np.ndarray:
        """Valid values in the problem's units of unit-interval coordinates."""

    @abstractmethod
    def slope(self, x: np.ndarray) -> np.ndarray:
        """Derivative of `encode` at x, of the continuous relaxation where the variable has steps."""

    @abstractmethod
    def param(self, x: float) -> float | int:
        """The value as the black box gets it."""

    def to_config(self) -> dict[str, Any]:
        return {"type": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Float(_Variable):
    """A real variable in [low, high], on a logarithmic scale or in steps from low on request."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    kind: ClassVar[str] = "float"

    def __post_init__(self) -> None:
        _coerce(self, float, "low", "high", "step")
        _check_bounds(self.low, self.high, self.log)
        if self.step is not None:
            if self.log:
                raise ValueError("step: expected none with log: true, for steps are not even on a logarithmic scale")
            if not 0 < self.step <= (self.high - self.low) * (1 + 1e-9):
                raise ValueError(f"step: expected a number in (0, {self.high - self.low:g}], got {self.step!r}")

    def encode(self, x: np.ndarray) -> np.ndarray:
        if self.log:
            return np.log(x / self.low) / np.log(self.high / self.low)
        if self.step is not None:
            return ((x - self.low) / self.step + 0.5) / self._levels
        return (x - self.low) / (self.high - self.low)

    def decode(self, u: np.ndarray) -> np.ndarray:
        u = np.clip(u, 0.0, 1.0)
        if self.log:
            return np.clip(self.low * (self.high / self.low) ** u, self.low, self.high)
        if self.step is not None:
            return np.minimum(
                self.low + self.step * np.minimum(np.floor(u * self._levels), self._levels - 1), self.high
            )
        return np.clip(self.low + u * (self.high - self.low), self.low, self.high)

    def slope(self, x: np.ndarray) -> np.ndarray:
        if self.log:
            return 1.0 / (x * np.log(self.high / self.low))
        width = self.high - self.low if self.step is None else self.step * self._levels
        return np.full_like(x, 1.0 / width)

    def param(self, x: float) -> float:
        return float(x)

    @property
    def _levels(self) -> int:
        assert self.step is not None
        return int(np.floor((self.high - self.low) / self.step + 1e-9)) + 1


@dataclass(frozen=True)
class Integer(_Variable):
    """A whole number from low to high, both included, on a logarithmic scale on request."""

    low: int
    high: int
    log: bool = False
    step: int = 1
    kind: ClassVar[str] = "integer"

    def __post_init__(self) -> None:
        _coerce(self, int, "low", "high", "step")
        _check_bounds(self.low, self.high, self.log)
        if not 1 <= self.step <= self.high - self.low or (self.log and self.step != 1):
            raise ValueError(
                f"step: expected an integer >= 1 and <= high - low = {self.high - self.low} (1 with log: true), "
                f"got {self.step!r}"
            )

    def encode(self, x: np.ndarray) -> np.ndarray:
        if self.log:
            return np.log(x / self._edges[0]) / np.log(self._edges[1] / self._edges[0])
        return ((x - self.low) / self.step + 0.5) / self._levels

    def decode(self, u: np.ndarray) -> np.ndarray:
        u = np.clip(u, 0.0, 1.0)
        if self.log:
            low, high = self._edges
            return np.clip(np.round(low * (high / low) ** u), self.low, self.high)
        return self.low + self.step * np.minimum(np.floor(u * self._levels), self._levels - 1)

    def slope(self, x: np.ndarray) -> np.ndarray:
        if self.log:
            return 1.0 / (x * np.log(self._edges[1] / self._edges[0]))
        return np.full_like(x, 1.0 / (self.step * self._levels))

    def param(self, x: float) -> int:
        return round(x)

    @property
    def _edges(self) -> tuple[float, float]:
        return self.low - 0.5, self.high + 0.5

    @property
    def _levels(self) -> int:
        return (self.high - self.low) // self.step + 1


Variable = Float | Integer
RESERVED = frozenset({"objective", "status", "reason"})  # the other columns of a dataset
VARIABLES: dict[str, type[Float] | type[Integer]] = {v.kind: v for v in (Float, Integer)}


class SearchSpace:
    """An ordered set of named variables; immutable, hashable and comparable.

    Args:
        variables: name to variable, in the order of the columns of X.

    Raises:
        ValueError: there is no variable, or a name is one that datasets use for themselves.

    Example:
        >>> space = SearchSpace({"x": Float(0, 10), "n": Integer(1, 4)})
        >>> space.decode([[0.5, 0.99]]).tolist()
        [[5.0, 4.0]]
        >>> space.params([5.0, 4.0])
        {'x': 5.0, 'n': 4}
    """

    def __init__(self, variables: Mapping[str, Variable]):
        if not variables:
            raise ValueError("space: expected at least one variable, got none")
        if taken := RESERVED & set(variables):
            raise ValueError(
                f"space: expected names other than {', '.join(sorted(RESERVED))}, got {sorted(taken)[0]!r}"
            )
        self._items = tuple(variables.items())

    @classmethod
    def from_bounds(cls, bounds: Sequence[tuple[float, float]]) -> "SearchSpace":
        """A space of real variables x1, x2, … from (low, high) pairs."""
        variables: dict[str, Variable] = {}
        for i, pair in enumerate(bounds):
            try:
                low, high = pair
                variables[f"x{i + 1}"] = Float(float(low), float(high))
            except (TypeError, ValueError) as error:
                raise ValueError(f"bounds[{i}]: expected a pair low < high, got {pair!r}") from error
        return cls(variables)

    @classmethod
    def from_config(cls, config: Mapping[str, Mapping[str, Any]]) -> "SearchSpace":
        """The inverse of `to_config`."""
        return cls({name: VARIABLES[v["type"]](**{k: v[k] for k in v if k != "type"}) for name, v in config.items()})

    def to_config(self) -> dict[str, dict[str, Any]]:
        """A JSON-able description, from which `from_config` makes the same space."""
        return {name: variable.to_config() for name, variable in self._items}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._items)

    @property
    def variables(self) -> tuple[Variable, ...]:
        return tuple(variable for _, variable in self._items)

    @property
    def n_dims(self) -> int:
        return len(self._items)

    @property
    def bounds(self) -> np.ndarray:
        """(d, 2): low and high of each variable."""
        return np.array([(v.low, v.high) for v in self.variables], dtype=float)

    def encode(self, X: Any) -> np.ndarray:
        """Unit-cube coordinates of points in the problem's units, (d,) or (n, d)."""
        return self._columns(X, lambda variable, column: variable.encode(column))

    def decode(self, U: Any) -> np.ndarray:
        """Valid points in the problem's units of unit-cube coordinates, (d,) or (n, d); coordinates are clipped."""
        return self._columns(U, lambda variable, column: variable.decode(column))

    def slope(self, X: Any) -> np.ndarray:
        """dU/dX at points in the problem's units, (d,) or (n, d), by which a unit-cube gradient is multiplied."""
        return self._columns(X, lambda variable, column: variable.slope(column))

    def params(self, x: Sequence[float] | np.ndarray) -> dict[str, float | int]:
        """One point in the problem's units, (d,), as the keywords that a black box is called with."""
        if np.shape(x) != (self.n_dims,):
            raise ValueError(f"point: expected shape ({self.n_dims},), got {np.shape(x)}")
        return {name: variable.param(value) for (name, variable), value in zip(self._items, x, strict=True)}

    def _columns(self, points: Any, convert: Any) -> np.ndarray:
        points = np.asarray(points, dtype=float)
        if points.ndim not in (1, 2) or points.shape[-1] != self.n_dims:
            raise ValueError(f"points: expected shape ({self.n_dims},) or (n, {self.n_dims}), got {points.shape}")
        columns = [convert(variable, points[..., i]) for i, variable in enumerate(self.variables)]
        return np.stack(columns, axis=-1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self._items == other._items

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"SearchSpace({dict(self._items)})"


def _coerce(variable: _Variable, kind: type[float] | type[int], *names: str) -> None:
    """Plain numbers in place of numpy's and of whole floats, so that equal variables have equal configurations."""
    for name in names:
        value = getattr(variable, name)
        if value is not None:
            if kind is int and int(value) != value:
                raise ValueError(f"{name}: expected a whole number, got {value!r}")
            object.__setattr__(variable, name, kind(value))


def _check_bounds(low: float, high: float, log: bool) -> None:
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"low: expected a finite number below high, got low {low:g} and high {high:g}")
    if log and low <= 0:
        raise ValueError(f"low: expected a number above 0 with log: true, got {low:g}")
