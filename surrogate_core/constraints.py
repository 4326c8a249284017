"""Known constraints: conditions on a point's parameters that can be checked without calling the black box.

Notation: c: (n,) how far each point is from meeting a constraint; it is met where c <= 0, and not where c is NaN.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np

_BINARY: dict[type[ast.operator], Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Mod: np.mod,
    ast.Pow: np.float_power,  # unlike power, it takes negative whole exponents of integers
}
_UNARY: dict[type[ast.unaryop], Callable[..., Any]] = {ast.USub: np.negative, ast.UAdd: np.positive}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in ("abs", "sqrt", "exp", "log", "log10", "sin", "cos", "tan", "tanh")},
    "min": lambda *values: reduce(np.minimum, values),
    "max": lambda *values: reduce(np.maximum, values),
}
_CONSTANTS = {"pi": np.pi}
LARGEST = 1e100
_Columns = Mapping[str, np.ndarray]


class ConstraintFailed(ValueError):
    """A constraint's function gave no number."""


@dataclass(frozen=True)
class Constraint:
    """A condition on parameters.

    Args:
        of: an expression of numeric variables, such as "x + 2 * y <= 3", or "x + 2 * y - 3", which is met where it is
            <= 0; the name `package.module:function`; or a function, called with keywords, that returns such a number or
            several.

    Raises:
        ValueError: an expression that cannot be read.

    >>> Constraint("1 <= x * y <= 3").of_columns({"x": np.array([1.0, 2.0]), "y": np.array([0.5, 1.0])}).tolist()
    [0.5, -1.0]
    """

    of: str | Callable[..., Any]

    def __post_init__(self) -> None:
        _ = self._tree  # what cannot be read is told now

    @property
    def is_expression(self) -> bool:
        return isinstance(self.of, str) and ":" not in self.of

    @cached_property
    def _tree(self) -> ast.expr | None:
        if not self.is_expression:
            return None
        assert isinstance(self.of, str)
        try:
            tree = ast.parse(self.of.strip(), mode="eval").body
            for node in ast.walk(tree):
                _check(node, tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            why = getattr(error, "msg", "") or str(error) or "too deep"
            raise ValueError(f"expected an expression such as 'x + 2 * y <= 3', got {self.of!r} ({why})") from error
        return tree

    @property
    def names(self) -> set[str]:
        """The variables that an expression is of; none where it is a function."""
        nodes = list(ast.walk(self._tree)) if self._tree is not None else []
        called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        names = {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called}
        return names - _CONSTANTS.keys()

    def of_columns(self, columns: _Columns) -> np.ndarray:
        """c of n points, an expression's, by name and column (n,)."""
        assert self._tree is not None
        n = len(next(iter(columns.values())))
        with np.errstate(all="ignore"):
            return np.broadcast_to(np.asarray(_condition(self._tree, columns), dtype=float), (n,)).copy()

    def of_params(self, points: Sequence[Mapping[str, Any]]) -> list[float]:
        """c of points, a function's, by their parameters.

        Raises:
            ConstraintFailed: it raised, or returned no number.
        """
        function, found = self.function, []
        for params in points:
            try:
                made = np.asarray(function(**params))
                if made.dtype.kind not in "iuf":  # true would be 1, which is not met
                    raise TypeError(f"it is met where it is <= 0, and returned {made.tolist()!r}")
                found.append(float(made.max()))
            except Exception as error:
                told = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise ConstraintFailed(
                    f"constraints: expected a number of {self}, got {told} at {dict(params)}"
                ) from error
        return found

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself.

        Raises:
            ValueError: it was named, and there is none of that name.
        """
        if callable(self.of):
            return self.of
        from surrogate_core.problems.black_box import BlackBox  # which knows spaces

        return BlackBox(self.of).resolve()

    def __str__(self) -> str:
        return self.of if isinstance(self.of, str) else getattr(self.of, "__qualname__", repr(self.of))


def _check(node: ast.AST, tree: ast.expr) -> None:
    known: tuple[type[ast.AST], ...] = (ast.Name, ast.Load, *_BINARY, *_UNARY, ast.BinOp, ast.UnaryOp)
    if isinstance(node, ast.Compare):
        if node is not tree or not all(isinstance(op, ast.LtE | ast.GtE) for op in node.ops):
            raise ValueError("only <= and >= compare, and only the whole")
    elif isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and node.args and not node.keywords):
            raise ValueError(f"expected one of the functions {', '.join(_FUNCTIONS)}")
        if len(node.args) > 1 and node.func.id not in ("min", "max"):
            raise ValueError(f"{node.func.id} takes one argument")
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise ValueError(f"{node.value!r} is no number")
        if not abs(node.value) <= LARGEST:
            raise ValueError(f"a number is beyond {LARGEST:g}")
    elif not isinstance(node, (*known, ast.LtE, ast.GtE)):
        raise ValueError(f"{type(node).__name__.lower()} is not arithmetic")


def _condition(node: ast.expr, columns: _Columns) -> Any:
    if not isinstance(node, ast.Compare):
        return _value(node, columns)
    sides = [_value(side, columns) for side in (node.left, *node.comparators)]
    pairs = zip(node.ops, sides[:-1], sides[1:], strict=True)
    return reduce(np.maximum, [a - b if isinstance(op, ast.LtE) else b - a for op, a, b in pairs])


def _value(node: ast.expr, columns: _Columns) -> Any:
    if isinstance(node, ast.Constant):
        return np.float64(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return columns[node.id] if node.id in columns else _CONSTANTS[node.id]
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, columns), _value(node.right, columns))
    if isinstance(node, ast.UnaryOp):
        return _UNARY[type(node.op)](_value(node.operand, columns))
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    return _FUNCTIONS[node.func.id](*(_value(argument, columns) for argument in node.args))
