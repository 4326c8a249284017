"""Gates: bounds that a surrogate's cross-validation must meet before its optimum is believed."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """One verdict: a metric against the bound it was held to."""

    name: str
    value: float
    bound: float
    passed: bool

    def __str__(self) -> str:
        sign = "<" if self.name.startswith("min_") else ">"
        return f"{self.name}: {self.value:.3g}" + ("" if self.passed else f" {sign} {self.bound:g}")


def judge(metrics: Mapping[str, float], bounds: Mapping[str, float | None]) -> list[Gate]:
    """A verdict on each bound that is set.

    Args:
        metrics: of a cross-validation, by name.
        bounds: `min_METRIC` or `max_METRIC` to its bound; None is no gate.

    Raises:
        KeyError: a bound names no metric.
    """
    gates = []
    for name, bound in bounds.items():
        if bound is None:
            continue
        side, _, metric = name.partition("_")
        if side not in ("min", "max"):
            raise KeyError(name)
        value = metrics[metric]
        gates.append(Gate(name, value, bound, passed=value >= bound if side == "min" else value <= bound))
    return gates
