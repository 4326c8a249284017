"""The search space: named variables in the problem's own units, their encoding to and from the unit cube, constraints.

Notation: X: (n, d) in the problem's units, where a choice is its place among the choices; U: (n, d) in [0, 1]. A
variable with m levels or choices owns m equal bins of the unit interval, so that every one is equally likely to be
sampled, and encodes to the middle of its bin.
"""

import math
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from surrogate_core.constraints import Constraint

Value = float | int | str | bool
"""Of a parameter, as a black box gets it."""


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

    @property
    @abstractmethod
    def n_values(self) -> float:
        """How many values it has; infinite where it is continuous."""

    @abstractmethod
    def param(self, x: float) -> Value:
        """The value as the black box gets it, of one in X."""

    def column(self, value: Value) -> float:
        """The inverse of `param`.

        Raises:
            ValueError: the value is none of the variable's kind.
        """
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ValueError(f"expected a number, got {value!r}")
        return float(value)

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
    def n_values(self) -> float:
        return math.inf if self.step is None else self._levels

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
    def n_values(self) -> float:
        return self._levels

    @property
    def _levels(self) -> int:
        return (self.high - self.low) // self.step + 1


@dataclass(frozen=True, eq=False)
class Categorical(_Variable):
    """One of several choices without an order: texts, numbers or booleans."""

    choices: Sequence[Value]
    kind: ClassVar[str] = "categorical"

    def __post_init__(self) -> None:
        if isinstance(self.choices, str) or not isinstance(self.choices, Sequence):
            raise ValueError(f"choices: expected a list, got {self.choices!r}")
        choices = tuple(c.item() if isinstance(c, np.generic) else c for c in self.choices)
        for choice in choices:
            if not isinstance(choice, str | bool | int | float) or choice != choice:
                raise ValueError(f"choices: expected texts, numbers or booleans, got {choice!r}")
        if len(choices) < 2 or len(set(choices)) < len(choices):
            raise ValueError(f"choices: expected at least two, all distinct, got {list(choices)!r}")
        object.__setattr__(self, "choices", choices)

    @property
    def n_values(self) -> float:
        return len(self.choices)

    @property
    def low(self) -> int:
        return 0

    @property
    def high(self) -> int:
        return len(self.choices) - 1

    def encode(self, x: np.ndarray) -> np.ndarray:
        return (x + 0.5) / len(self.choices)

    def decode(self, u: np.ndarray) -> np.ndarray:
        return np.minimum(np.floor(np.clip(u, 0.0, 1.0) * len(self.choices)), self.high)

    def slope(self, x: np.ndarray) -> np.ndarray:
        return np.zeros_like(x)

    def param(self, x: float) -> Value:
        return self.choices[round(x)]

    def column(self, value: Value) -> float:
        if value not in self.choices:
            raise ValueError(f"expected one of {', '.join(map(repr, self.choices))}, got {value!r}")
        return float(self.choices.index(value))

    def to_config(self) -> dict[str, Any]:
        return {"type": self.kind, "choices": list(self.choices)}

    def __eq__(self, other: object) -> bool:  # to Python 1, 1.0 and True are equal, to a black box they are not
        return isinstance(other, Categorical) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


Variable = Float | Integer | Categorical
RESERVED = frozenset({"objective", "status", "reason", "noise"})  # the other columns of a dataset
GRADIENT = "gradient."  # begins those of derivatives
VARIABLES: dict[str, type[Float] | type[Integer] | type[Categorical]] = {
    v.kind: v for v in (Float, Integer, Categorical)
}


class SearchSpace:
    """An ordered set of named variables and the constraints between them; immutable, hashable and comparable.

    Args:
        variables: name to variable, in the order of the columns of X.
        constraints: what `Constraint` takes: expressions, names of functions, or functions.

    Raises:
        ValueError: there is no variable, a name is one that datasets use for themselves, or a constraint is none.

    Example:
        >>> space = SearchSpace({"x": Float(0, 10), "kind": Categorical(["a", "b"])}, ["x <= 8"])
        >>> space.decode([[0.5, 0.99]]).tolist()
        [[5.0, 1.0]]
        >>> space.params([5.0, 1.0])
        {'x': 5.0, 'kind': 'b'}
        >>> space.is_feasible([[5.0, 1.0], [9.0, 0.0]]).tolist()
        [True, False]
    """

    def __init__(
        self, variables: Mapping[str, Variable], constraints: Sequence[str | Callable[..., Any] | Constraint] = ()
    ):
        if not variables:
            raise ValueError("space: expected at least one variable, got none")
        if taken := [name for name in variables if name in RESERVED or name.startswith(GRADIENT)]:
            raise ValueError(
                f"space: expected names other than {', '.join(sorted(RESERVED))} and {GRADIENT}*, got {taken[0]!r}"
            )
        self._items = tuple(variables.items())
        self.constraints = tuple(_constraint(of, i, variables) for i, of in enumerate(constraints))

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
    def from_config(cls, config: Mapping[str, Any]) -> "SearchSpace":
        """The inverse of `to_config`."""
        made = {name: VARIABLES[v["type"]](**{k: v[k] for k in v if k != "type"}) for name, v in config["variables"]}
        return cls(made, config["constraints"])

    def to_config(self) -> dict[str, list[Any]]:
        """A JSON-able description, from which `from_config` makes the same space.

        Raises:
            ValueError: a constraint is a function, which cannot be written down; its name could.
        """
        for constraint in self.constraints:
            if not isinstance(constraint.of, str):
                raise ValueError(f"constraints: expected an expression or 'package.module:name', got {constraint}")
        variables = [[name, variable.to_config()] for name, variable in self._items]  # a list: their order counts
        return {"variables": variables, "constraints": [constraint.of for constraint in self.constraints]}

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

    @property
    def n_choices(self) -> np.ndarray:
        """(d,): how many choices each variable has; 0 where it is a number."""
        return np.array([len(v.choices) if isinstance(v, Categorical) else 0 for v in self.variables], dtype=float)

    @property
    def n_points(self) -> float:
        """How many points there are, met constraints or not; infinite with a continuous variable."""
        return math.prod(float(variable.n_values) for variable in self.variables)

    def encode(self, X: Any) -> np.ndarray:
        """Unit-cube coordinates of points in the problem's units, (d,) or (n, d)."""
        return self._columns(X, lambda variable, column: variable.encode(column))

    def decode(self, U: Any) -> np.ndarray:
        """Valid points in the problem's units of unit-cube coordinates, (d,) or (n, d); coordinates are clipped."""
        return self._columns(U, lambda variable, column: variable.decode(column))

    def slope(self, X: Any) -> np.ndarray:
        """dU/dX at points in the problem's units, (d,) or (n, d), by which a unit-cube gradient is multiplied."""
        return self._columns(X, lambda variable, column: variable.slope(column))

    def params(self, x: Sequence[float] | np.ndarray) -> dict[str, Value]:
        """One point in the problem's units, (d,), as the keywords that a black box is called with."""
        if np.shape(x) != (self.n_dims,):
            raise ValueError(f"point: expected shape ({self.n_dims},), got {np.shape(x)}")
        return {name: variable.param(value) for (name, variable), value in zip(self._items, x, strict=True)}

    def point(self, params: Mapping[str, Value]) -> np.ndarray:
        """The inverse of `params`: (d,).

        Raises:
            ValueError: a parameter is missing, unknown, or no value of its variable.
        """
        if set(params) != set(self.names):
            raise ValueError(f"params: expected {', '.join(self.names)}, got {', '.join(map(str, params))}")
        x = []
        for name, variable in self._items:
            try:
                x.append(variable.column(params[name]))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return np.array(x)

    def is_feasible(self, X: Any) -> np.ndarray:
        """Which points in the problem's units, (d,) or (n, d), meet all constraints: scalar or (n,)."""
        rows = np.atleast_2d(np.asarray(X, dtype=float))
        meets = np.ones(len(rows), dtype=bool)
        for constraint in sorted(self.constraints, key=lambda one: not one.is_expression):  # functions may be dear
            meets[meets] = self._missed(constraint, rows[meets]) <= 0
        return meets.reshape(np.shape(X)[:-1])

    def violation(self, X: Any) -> np.ndarray:
        """How far each point is from meeting the constraint that it meets least; all are met where it is <= 0."""
        rows = np.atleast_2d(np.asarray(X, dtype=float))
        c = np.array([np.full(len(rows), -np.inf), *(self._missed(one, rows) for one in self.constraints)])
        worst = np.where(np.isnan(c).any(axis=0), np.inf, c.max(axis=0))
        return worst.reshape(np.shape(X)[:-1])

    def _missed(self, constraint: Constraint, rows: np.ndarray) -> np.ndarray:
        """c of a constraint at each row, (n,)."""
        if len(rows) == 0:
            return np.zeros(0)
        if constraint.is_expression:
            return constraint.of_columns(self._numbers(rows))
        return np.array(constraint.of_params([self.params(row) for row in rows]))

    def _numbers(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of values by name; of a categorical variable its choices, where they are numbers."""
        numbers = {}
        for i, (name, variable) in enumerate(self._items):
            if not isinstance(variable, Categorical):
                numbers[_spelled(name)] = rows[:, i]
            elif _is_numeric(variable):
                numbers[_spelled(name)] = np.array(variable.choices, dtype=float)[rows[:, i].astype(int)]
        return numbers

    def _columns(self, points: Any, convert: Any) -> np.ndarray:
        points = np.asarray(points, dtype=float)
        if points.ndim not in (1, 2) or points.shape[-1] != self.n_dims:
            raise ValueError(f"points: expected shape ({self.n_dims},) or (n, {self.n_dims}), got {points.shape}")
        rows = np.atleast_2d(points)  # numpy's power of a single number may have another last bit than an array's
        columns = [convert(variable, rows[:, i]) for i, variable in enumerate(self.variables)]
        return np.stack(columns, axis=-1).reshape(points.shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and (self._items, self.constraints) == (other._items, other.constraints)

    def __hash__(self) -> int:
        return hash((self._items, self.constraints))

    def __repr__(self) -> str:
        constraints = f", {[str(constraint) for constraint in self.constraints]}" if self.constraints else ""
        return f"SearchSpace({dict(self._items)}{constraints})"


def _constraint(of: Any, place: int, variables: Mapping[str, Variable]) -> Constraint:
    try:
        constraint = of if isinstance(of, Constraint) else Constraint(of)
        if not isinstance(constraint.of, str) and not callable(constraint.of):
            raise ValueError(f"expected an expression or a function, got {of!r}")
        spelled = {_spelled(name): variable for name, variable in variables.items()}
        for name in sorted(constraint.names):
            variable = spelled.get(name)
            if variable is None or (isinstance(variable, Categorical) and not _is_numeric(variable)):
                raise ValueError(f"expected numeric variables of the space, got {name!r} in {of!r}")
    except ValueError as error:
        raise ValueError(f"constraints[{place}]: {error}") from error
    return constraint


def _spelled(name: str) -> str:
    """A name as an expression has it: Python takes letters that look alike, such as two signs of micro, for one."""
    return unicodedata.normalize("NFKC", name)


def _is_numeric(variable: Categorical) -> bool:
    return all(isinstance(choice, int | float) for choice in variable.choices)


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
