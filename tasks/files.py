"""Files as values: what a stage returns, checked."""

from collections.abc import Collection
from pathlib import PurePosixPath

StageFiles = dict[str, bytes]
"""What a stage returns: relative path to content."""


def check_files(files: object, outs: Collection[str] | None = None) -> None:
    """Raise TypeError or ValueError unless `files` maps plain relative paths to bytes.

    Args:
        files: what came of a stage.
        outs: the files and folders that there must be, and nothing beside them; None for any.
    """
    if type(files) is not dict:
        raise TypeError(f"stage files: expected a dict of path to bytes, got {type(files).__name__}")
    for path, content in files.items():
        if type(path) is not str or type(content) is not bytes:
            raise TypeError(f"stage files: expected str to bytes, got {path!r} to {type(content).__name__}")
        parts = PurePosixPath(path).parts
        plain = path.isprintable() and "\\" not in path and ":" not in path and "/".join(parts) == path
        if not parts or not plain or path.startswith("/") or ".." in parts:
            raise ValueError(f"stage files: expected a plain relative path without '..', got {path!r}")
    if outs is not None:
        owners = [next((out for out in outs if path == out or path.startswith(f"{out}/")), None) for path in files]
        if set(owners) != set(outs):
            raise ValueError(f"stage files: expected {', '.join(outs)} and nothing else, got {', '.join(files)}")
