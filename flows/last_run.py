"""runs/last_run.json: what each stage cost when it ran here last, and how the last run ended. It tells of times, so it
is not versioned; the page reads it where it is there, and nothing else depends on it."""

import platform
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from surrogate_core.atomic import write_file
from surrogate_core.performance.profiler import Cost
from tasks.workspace import Workspace

SCHEMA = 1
LIBRARIES = ("surrogate-lab", "jax", "numpy", "optuna")

_STAGE = {"key", "mlflow_run", "cache", "when", "worked", *(field.name for field in fields(Cost))}
_RUN = {"when", "status", "reason", "mlflow_run", "versions"}


def last_run(workspace: Workspace) -> dict[str, Any]:
    """The entries of the `stages` by name, and the `run` that ended last; empty where none is known."""
    try:
        known: dict[str, Any] = orjson.loads(_file(workspace).read_bytes())
        stages, run = known["stages"].values(), known["run"]
        if known["schema"] == SCHEMA and all(set(stage) == _STAGE for stage in stages) and set(run) in (_RUN, set()):
            return known
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # none yet, or not one of ours: the next run writes it anew
    return {"schema": SCHEMA, "stages": {}, "run": {}}


def note_stage(workspace: Workspace, stage: str, *, key: str, cache: str, cost: Cost, run_id: str) -> str:
    """Notes what a stage that succeeded cost, under which key; returns what went wrong, "" for nothing."""
    costs = {"when": _now(), **asdict(cost)}

    def change(known: dict[str, Any]) -> None:
        before = known["stages"].get(stage, {})
        # What came from the cache was worked for once, which is what people ask for; known if that was the run before.
        worked = before.get("worked") if before.get("key") == key else None
        entry = {"key": key, "mlflow_run": run_id, "cache": cache, **costs, "worked": worked}
        known["stages"][stage] = entry if cache == "hit" else {**entry, "worked": costs}

    return _update(workspace, change)


def note_end(workspace: Workspace, *, status: str, reason: str, run_id: str) -> str:
    """Notes how a run ended, and by which versions; returns as `note_stage`."""
    entry = {"when": _now(), "status": status, "reason": reason, "mlflow_run": run_id, "versions": versions()}
    return _update(workspace, lambda known: known["run"].update(entry))


def versions() -> dict[str, str]:
    """Of what results may depend on."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {**libraries, "python": platform.python_version(), "platform": platform.platform(terse=True)}


def _update(workspace: Workspace, change: Callable[[dict[str, Any]], None]) -> str:
    known = last_run(workspace)
    change(known)
    try:
        write_file(_file(workspace), orjson.dumps(known, option=orjson.OPT_INDENT_2) + b"\n")
    except OSError as error:
        return f"{_file(workspace)}: not written ({error.strerror})"
    return ""


def _file(workspace: Workspace) -> Path:
    return workspace.unversioned / "last_run.json"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
