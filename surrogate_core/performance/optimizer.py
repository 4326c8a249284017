"""An optimizer whose result says what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from surrogate_core.optimizers.local import LocalOptimizer
from surrogate_core.optimizers.multi_start import MultiStartOptimizer
from surrogate_core.performance.profiler import GRADIENTS, VALUES, Level, performance_monitor, tallied
from surrogate_core.performance.wrappers import PLAIN
from surrogate_core.surrogates.base import FittedSurrogate


class ProfiledOptimizer:
    """Any optimizer; `metadata["performance_profile"]` of what it returns says what it cost.

    The profile has `function_evaluations` and `gradient_evaluations` of the surrogate, each with `count`, `total_time`
    and `mean_time`; `wall_time`, `compile_time`, `run_time` and `memory` of the whole; and `summary`, all that the
    profiler tells. Where a search is one compiled program, it counts its own evaluations; a value and its gradient are
    computed together there, so each evaluation counts as both, and the time of the program is told under both.

    Args:
        base: an object with `optimize(surrogate, x0, bounds, ...)`.
        profile_level: of the `performance_monitor`.
        output_file: where each profile is written, in a format that `PerformanceProfiler.save` knows; None for nowhere.

    Example:
        >>> from surrogate_core import GPSurrogate, LBFGSOptimizer, collect_data
        >>> data = collect_data(lambda x: float(x @ x), n_samples=16, bounds=[(-1, 1)] * 2)
        >>> found = ProfiledOptimizer(LBFGSOptimizer()).optimize(GPSurrogate(n_starts=2).fit(data))
        >>> found.metadata["performance_profile"]["gradient_evaluations"]["count"] == found.nfev
        True
    """

    def __init__(self, base: Any, profile_level: Level = "basic", output_file: str | Path | None = None):
        self.base = base
        self.profile_level = profile_level
        self.output_file = output_file

    def optimize(self, surrogate: Any, x0: Any = None, bounds: Any = None, **how: Any) -> Any:
        """What the optimizer returns, with its profile.

        Raises:
            Exception: whatever the optimizer raises.
        """
        counts_itself = isinstance(self.base, LocalOptimizer | MultiStartOptimizer)
        seen = surrogate if counts_itself else _timed(surrogate)
        name = type(self.base).__name__
        with performance_monitor(name, self.profile_level) as profiler:
            found = self.base.optimize(seen, x0, bounds, **how)
        summary = profiler.get_performance_summary()
        times = summary["timing_summary"]
        whole = times[name]
        profile = {
            VALUES: _told(times.get(VALUES)),
            GRADIENTS: _told(times.get(GRADIENTS)),
            "wall_time": whole["total_time"],
            "compile_time": whole["compile_time"],
            "run_time": whole["run_time"],
            "memory": summary["memory_summary"],
            "summary": summary,
        }
        if self.output_file is not None:
            profiler.save(self.output_file)
        metadata = {**(getattr(found, "metadata", None) or {}), "performance_profile": profile}
        if is_dataclass(found) and not isinstance(found, type):
            return replace(found, metadata=metadata)
        if isinstance(found, dict):  # such as scipy's
            found["metadata"] = metadata
        else:
            found.metadata = metadata
        return found


def _told(times: Mapping[str, Any] | None) -> dict[str, Any]:
    if times is None:
        return {"count": 0, "total_time": 0.0, "mean_time": 0.0}
    return {"count": times["call_count"], "total_time": times["total_time"], "mean_time": times["mean_time"]}


class _TimedFitted(FittedSurrogate):
    """A fitted surrogate each of whose calls is counted and timed, for optimizers that do not count."""

    def predict(self, X: Any) -> Any:
        with _tallied(VALUES, X):
            return super().predict(X)

    def gradient(self, X: Any) -> Any:
        with _tallied(GRADIENTS, X):
            return super().gradient(X)


class _Timed:
    """The same of a surrogate of one's own."""

    def __init__(self, wrapped: Any):
        self.wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "wrapped":
            raise AttributeError(name)
        value = getattr(self.wrapped, name)
        counted = {"predict": VALUES, "gradient": GRADIENTS}.get(name)
        if counted is None:
            return value

        def call(X: Any) -> Any:
            with _tallied(counted, X):
                return value(X)

        return call


@contextmanager
def _tallied(name: str, X: Any) -> Iterator[None]:
    with tallied(name) as evaluated:
        evaluated.n = 1 if np.ndim(X) < 2 else len(X)
        yield


def _timed(surrogate: Any) -> Any:
    if isinstance(surrogate, FittedSurrogate):
        return _TimedFitted(surrogate.spec, surrogate.space, surrogate.state, surrogate.diagnostics, surrogate.asked)
    return _Timed(surrogate)


jax.tree_util.register_pytree_node(_TimedFitted, *PLAIN)
