"""How many trials at a time: as many as workers there are, and no more than a sampler can do with."""

from __future__ import annotations

import os
from dataclasses import replace

from surrogate_core.execution import ExecutorSpec, usable_cpus
from surrogate_core.tuning.space import TuningSpace

MAX_CONCURRENT = "SURROGATE_MAX_CONCURRENT"


def trial_executor(executor: ExecutorSpec, space: TuningSpace) -> ExecutorSpec:
    """An executor with its number of workers.

    The one that it has, but at most SURROGATE_MAX_CONCURRENT; without one as many as that says, else a worker a usable
    CPU, as far as they are advised for the space. Serial ones, and clusters without a number, stay as they are.

    Raises:
        ValueError: the variable of the environment holds no number.
    """
    given = os.environ.get(MAX_CONCURRENT)
    if given is not None and (not given.isdecimal() or int(given) < 1):
        raise ValueError(f"{MAX_CONCURRENT}: expected an integer >= 1, got {given!r}")
    most = None if given is None else int(given)
    if executor.kind == "serial" or (executor.address is not None and most is None):
        return executor
    n = executor.n_workers or most or min(usable_cpus(), space.estimate.workers[1])
    return replace(executor, n_workers=n if most is None else min(n, most))


def advice(n_workers: int, space: TuningSpace) -> str:
    """A warning where there are more workers than a sampler can do with, else ""."""
    least, most = space.estimate.workers
    if n_workers <= most:
        return ""
    return (
        f"workers: {n_workers} at a time are more than the {least} to {most} that are advised for a space that is "
        f"{space.estimate.kind}: so many are proposed without knowing of each other; batch says how many"
    )
