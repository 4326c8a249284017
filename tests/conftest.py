"""Fixtures that several test modules share."""

import gc
import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from surrogate_core.execution import usable_cpus

pytest_plugins = ["workspace_fixture", "dask_cluster", "servers"]

TOGETHER = [
    ("docs",),
    ("crash", "end_to_end"),
    ("bad_input", "caching", "doctor", "pipeline", "schedule", "server"),
    ("dask", "execution"),
    ("tuning_storage",),
    ("objective", "tuning_crash"),
    ("stages",),
    ("surrogates",),
    ("optimize",),
    ("optimizers",),
    ("streaming",),
    ("gaussian_process",),
]
"""The modules that take longest, begun first. Those in one line are for one worker: they share solved workspaces, each
a Prefect server, or a Dask cluster."""

KIND = re.compile(
    r"\b(?<!_)(?:auto|gaussian_process|gradient_descent|hybrid|lbfgs|neural_network|random_forest|trust_region)\b"
)
"""Of surrogates and optimizers: a module's tests of one are for one worker, as they compile the same programs."""


class _Scheduling(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        path, _, test = nodeid.partition("::")
        group = TOGETHER[place] if (place := _place(path)) < len(TOGETHER) else (path,)
        kind = KIND.search(test.partition("[")[2])
        return f"{group[0]} {kind[0]}" if kind and len(group) == 1 else group[0]


def _place(path: str) -> int:
    """In `TOGETHER`, or after all that are there."""
    module = Path(path).stem.removeprefix("test_")
    return next((i for i, modules in enumerate(TOGETHER) if module in modules), len(TOGETHER))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(item.nodeid.partition("::")[0]))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # by the number of tests; here the order is that of time
    return _Scheduling(config, log)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than CPUs, as some wait for processes that they have started; few, as each compiles anew."""
    return min(usable_cpus() + 1, 8)


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("no test has a time", deadline=None)
    settings.load_profile("no test has a time")
    # Half of the suite's time is that of compiling, much of it the same programs in another worker, or in the last run.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")) if config.cache else "")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # XLA's older emitter compiles a fifth faster, and more so where nothing is optimized. The commands under test are
    # compiled as users have them.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0")
    gc.set_threshold(100_000, 50, 50)  # tracing makes many objects that stay
    # A shell that starts the suite in the background has it ignore Ctrl-C, which the commands under test would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """BLAS threads of small matrices wait for each other, the more where other workers compute."""
    from surrogate_core.blas import one_blas_thread

    with one_blas_thread():
        yield


@pytest.fixture(scope="session")
def prefect_harness(surroundings: Mapping[str, str]) -> Iterator[None]:
    """The session's Prefect server, for flows that run in this process."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    home = Path(surroundings["PREFECT_HOME"])
    with temporary_settings({PREFECT_API_URL: surroundings["PREFECT_API_URL"], PREFECT_HOME: home}):
        yield
