"""What stages have written, read back: one line for a file that is missing or damaged."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import orjson

from surrogate_core.dataset import Dataset
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.files import surrogate_from_files
from tasks.errors import BadInput
from tasks.keys import STAGES
from tasks.settings import parse_spec
from tasks.workspace import Workspace


def read_dataset(workspace: Workspace, path: str) -> Dataset:
    """A table.

    Raises:
        BadInput: it is missing or damaged; the line names the stage to run.
    """
    content = workspace.read([path])[path]
    try:
        return Dataset.from_bytes(content)
    except ValueError as error:
        raise _damaged(workspace, path, error) from error


def read_model(workspace: Workspace, folder: str) -> FittedSurrogate:
    """A fitted surrogate; raises as `read_dataset`."""
    files = workspace.read([folder])
    try:
        return surrogate_from_files({path.removeprefix(f"{folder}/"): content for path, content in files.items()})
    except ValueError as error:
        raise _damaged(workspace, folder, error) from error


def read_json(workspace: Workspace, path: str) -> dict[str, Any]:
    """A report; raises as `read_dataset`."""
    content = workspace.read([path])[path]
    try:
        report: dict[str, Any] = orjson.loads(content)
    except ValueError as error:
        raise _damaged(workspace, path, error) from error
    return report


def specs(fitted: FittedSurrogate) -> dict[str, Any]:
    """The spec that was asked for, by which to fit again, and what it has chosen where it left that open."""
    return {"surrogate": config(fitted.asked), "chosen": config(fitted.spec)}


def config(spec: Surrogate) -> dict[str, Any]:
    """A spec as a report has it: without empty lists, which DVC's plots of the file would fail at."""
    return {name: value for name, value in spec.to_config().items() if value != ()}


def told_spec(report: Mapping[str, Any]) -> str:
    """What a report says of `specs`: what was asked for, and what was chosen where that was left open."""
    asked, chosen = (parse_spec(report.get(name, report["surrogate"])) for name in ("surrogate", "chosen"))
    if chosen.kind != asked.kind:
        return f"{asked}, which chose {chosen}"
    changed = [field.name for field in fields(asked) if getattr(asked, field.name) != getattr(chosen, field.name)]
    choices = ", ".join(f"{name}={getattr(chosen, name)}" for name in changed)
    return f"{asked}, which chose {choices}" if choices else str(asked)


def to_json(report: Any) -> bytes:
    """A report as a file."""
    return orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n"


def _damaged(workspace: Workspace, path: str, error: ValueError) -> BadInput:
    maker = next(stage.name for stage in STAGES.values() if path in stage.outs)
    return BadInput(f"{workspace.out / path}: {error}; run {maker} again")
