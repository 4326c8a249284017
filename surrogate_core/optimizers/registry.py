"""Optimizers by name, and a user's own by `module:Class`."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

from surrogate_core.optimizers.gradient_descent import GradientDescentOptimizer
from surrogate_core.optimizers.lbfgs import LBFGSOptimizer
from surrogate_core.optimizers.local import LocalOptimizer
from surrogate_core.optimizers.multi_start import MultiStartOptimizer
from surrogate_core.optimizers.trust_region import TrustRegionOptimizer
from surrogate_core.problems.black_box import BlackBox

LOCAL: dict[str, type[LocalOptimizer]] = {
    made.kind: made for made in (GradientDescentOptimizer, LBFGSOptimizer, TrustRegionOptimizer)
}
KINDS = (*LOCAL, MultiStartOptimizer.kind)


class AnyOptimizer(Protocol):
    """What is accepted as an optimizer.

    `optimize` is called with a surrogate, a point in the problem's units or None, and bounds, (low, high) of each
    variable, or None; it returns an object with `x`, `fun` and `success`.
    """

    def optimize(self, surrogate: Any, x0: Any = None, bounds: Any = None, **how: Any) -> Any: ...


def make_optimizer(kind: str, params: Mapping[str, Any] | None = None) -> AnyOptimizer:
    """An optimizer of a kind, or of a class `package.module:Class`, made with the given parameters.

    The `optimizer` of `multi_start` may be such a kind too, or parameters with a `kind`.

    Raises:
        ValueError: there is none, it does not take the parameters, or it has no `optimize`.
    """
    how = dict(params or {})
    if ":" in kind:
        make: Any = BlackBox(kind).resolve()
    elif kind == MultiStartOptimizer.kind:
        make = MultiStartOptimizer
        if isinstance(local := how.get("optimizer"), str | Mapping):
            chosen = {"kind": local} if isinstance(local, str) else dict(local)
            local_kind = chosen.pop("kind", LBFGSOptimizer.kind)
            if local_kind not in LOCAL:
                raise ValueError(f"optimizer: expected one of {', '.join(LOCAL)}, got {local_kind!r}")
            how["optimizer"] = make_optimizer(local_kind, chosen)
    elif kind in LOCAL:
        make = LOCAL[kind]
    else:
        raise ValueError(f"optimizer_type: expected one of {', '.join(KINDS)} or package.module:Class, got {kind!r}")
    if isinstance(make, type) and issubclass(make, LocalOptimizer | MultiStartOptimizer):
        names = [field.name for field in fields(make)]
        if unknown := [name for name in how if name not in names]:
            raise ValueError(f"optimizer_params: expected some of {', '.join(names)}, got {unknown[0]!r}")
    try:
        made = make(**how)
    except TypeError as error:
        raise ValueError(f"optimizer_params: expected what {kind} takes, got {how!r} ({error})") from error
    if not callable(getattr(made, "optimize", None)):
        raise ValueError(f"optimizer_type: expected an object with a method optimize, got {kind!r}")
    optimizer: AnyOptimizer = made
    return optimizer
