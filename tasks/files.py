"""Files as values: what a stage returns, checked, and written whole or not at all."""

import os
import tempfile
from pathlib import Path, PurePosixPath

StageFiles = dict[str, bytes]
"""What a stage returns: relative path to content."""

TEMPORARY = ".writing-"
"""Prefix of a file that is being written, or was when its process was killed."""


def check_files(files: object) -> None:
    """Raise TypeError or ValueError unless `files` maps plain relative paths to bytes."""
    if type(files) is not dict:
        raise TypeError(f"stage files: expected a dict of path to bytes, got {type(files).__name__}")
    for path, content in files.items():
        if type(path) is not str or type(content) is not bytes:
            raise TypeError(f"stage files: expected str to bytes, got {path!r} to {type(content).__name__}")
        parts = PurePosixPath(path).parts
        plain = path.isprintable() and "\\" not in path and ":" not in path and "/".join(parts) == path
        if not parts or not plain or path.startswith("/") or ".." in parts:
            raise ValueError(f"stage files: expected a plain relative path without '..', got {path!r}")


def write_file(target: Path, content: bytes) -> None:
    """Write a file through a temporary name, synced and renamed; its folder is made if need be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=TEMPORARY)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's is the owner's alone
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
