"""Files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path

TEMPORARY = ".writing-"
"""Prefix of a file that is being written, or was when its process was killed."""


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
