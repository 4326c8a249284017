"""What a black box returned, read: a value, and where it gave them its gradient, noise and constraints."""

import math
import numbers
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

LARGEST = 1e100  # beyond it squares overflow


@dataclass(frozen=True)
class Evaluation:
    """What one point gave.

    Args:
        value: finite where the status is "ok" or "infeasible", else NaN.
        status: "infeasible" where a constraint that the black box measured is not met.
        reason: one line that says why the status is not "ok".
        gradient: (d,) derivatives of the value, in the order of the variables.
        noise: standard deviation of the value's measurement.
    """

    value: float
    status: Literal["ok", "failed", "infeasible"]
    reason: str = ""
    gradient: tuple[float, ...] | None = None
    noise: float | None = None

    def to_record(self) -> dict[str, Any]:
        """The same as JSON values, for the journal: a failure's value is None."""
        value = None if self.status == "failed" else self.value
        record: dict[str, Any] = {"value": value, "status": self.status, "reason": self.reason}
        measured = {"gradient": self.gradient, "noise": self.noise}
        return record | {name: value for name, value in measured.items() if value is not None}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The evaluation that `to_record` wrote."""
        value = math.nan if record["value"] is None else record["value"]
        gradient = tuple(record["gradient"]) if "gradient" in record else None
        return cls(value, record["status"], record["reason"], gradient, record.get("noise"))


def interpret(returned: Any, argument: Any = ()) -> Evaluation:
    """The evaluation in what a black box returned.

    Args:
        returned: a real number, or a dict with one under "value" and optionally "gradient" (a sequence, or a dict by
            variable), "noise" (a standard deviation) and "constraints" (a number, several or a dict; met where <= 0).
        argument: what it was called with: a mapping by variable, or (d,).

    Raises:
        TypeError: something is no real number, such as a bool, a string or an array that is not 0-d.
        ValueError: a number is not finite or too large, or a gradient does not fit the variables.

    >>> interpret({"value": 2, "noise": 0.1})
    Evaluation(value=2.0, status='ok', reason='', gradient=None, noise=0.1)
    >>> interpret({"value": 2, "constraints": {"stress": 0.5}}).reason
    'constraint stress: expected <= 0, got 0.5'
    """
    told: Mapping[str, Any] = returned if isinstance(returned, dict) else {"value": returned}
    if "value" not in told:
        raise TypeError(f"{_EXPECTED}, got a dict with the keys {reprlib.repr(list(told))}")
    value = _real(told["value"], _EXPECTED)
    if not math.isfinite(value):
        raise ValueError(f"not a finite number: {value}")
    if abs(value) > LARGEST:
        raise ValueError(f"expected a number of magnitude up to {LARGEST:g}, got {value:g}")
    gradient, noise = told.get("gradient"), told.get("noise")
    if noise is not None:
        noise = _real(noise, "noise: expected a standard deviation")
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise: expected a standard deviation >= 0, got {noise:g}")
    broken = _broken(told.get("constraints"))
    derivatives = None if gradient is None else _gradient(gradient, argument)
    return Evaluation(value, "infeasible" if broken else "ok", broken, derivatives, noise)


def _gradient(gradient: Any, argument: Any) -> tuple[float, ...]:
    d = len(argument)
    if isinstance(gradient, dict):
        if not isinstance(argument, Mapping) or set(gradient) != set(argument):
            raise ValueError(f"gradient: expected one derivative a variable, got those of {sorted(gradient)}")
        gradient = [gradient[name] for name in argument]
    if not isinstance(gradient, list | tuple) and np.ndim(gradient) != 1:
        raise TypeError(f"gradient: expected {d} derivatives, got {_description(gradient)}")
    if len(gradient) != d:
        raise ValueError(f"gradient: expected {d} derivatives, got {len(gradient)}")
    derivatives = tuple(_real(g, "gradient: expected real numbers") for g in gradient)
    if not np.isfinite(derivatives).all():
        raise ValueError(f"gradient: expected finite numbers, got {list(derivatives)}")
    return derivatives


def _broken(constraints: Any) -> str:
    """What is said of the first constraint that is not met; "" where all are."""
    if constraints is None:
        return ""
    if not isinstance(constraints, dict):
        several = isinstance(constraints, list | tuple) or np.ndim(constraints) == 1
        constraints = dict(enumerate(constraints if several else [constraints], start=1))
    for name, c in constraints.items():
        number = _real(c, "constraints: expected real numbers")
        if not number <= 0:  # nor NaN
            return f"constraint {name}: expected <= 0, got {number:g}"
    return ""


def _real(value: Any, expected: str) -> float:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    elif hasattr(value, "__array__") and getattr(value, "shape", None) == () and not isinstance(value, np.generic):
        value = np.asarray(value)[()]  # a 0-d array of JAX or torch
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{expected}, got {_description(value)}")
    return float(value)


_EXPECTED = "a black box must return a real number or a dict with 'value'"


def _description(value: Any) -> str:
    if value is None:
        return "None"
    if getattr(value, "shape", ()) != ():
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    told = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))  # the same on every run
    return f"{type(value).__name__} {told if len(told) <= 60 else told[:57] + '...'}"
