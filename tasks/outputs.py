"""What stages have written, read back: one line for a file that is missing or damaged."""

from typing import Any

import orjson

from surrogate_core.dataset import Dataset
from surrogate_core.surrogates.base import FittedSurrogate
from surrogate_core.surrogates.files import surrogate_from_files
from tasks.errors import BadInput
from tasks.keys import STAGES
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


def _damaged(workspace: Workspace, path: str, error: ValueError) -> BadInput:
    maker = next(stage.name for stage in STAGES.values() if path in stage.outs)
    return BadInput(f"{workspace.out / path}: {error}; run {maker} again")
