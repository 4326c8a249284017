"""What is kept on disk to spare work: the result cache's records, compiled code and journals; counted and removed.

Apart from tasks/caching.py, so that looking at the cache imports no Prefect, which takes seconds and makes a folder.
"""

import contextlib
import os
import re
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surrogate_core.atomic import TEMPORARY
from tasks.workspace import COMPILED, JOURNALS, MAX_COMPILED_BYTES, RESULTS

MAX_BYTES = 1_000_000_000
RECORD = re.compile(r"(?P<stage>[a-z][a-z0-9_]*)-(?P<key>[0-9a-f]{16,128})")


def cache_stats(home: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return what is kept in a project's home: the records in all and by stage, bytes and limits, journals."""
    found = list(records(home / RESULTS))
    stages = sorted(RECORD.fullmatch(file.name)["stage"] for file, _ in found)  # type: ignore[index]
    return {
        "entries": len(found),
        "bytes": sum(status.st_size for _, status in found),
        "limit": max_bytes,
        "stages": dict(Counter(stages)),
        "compiled_bytes": sum(file.stat().st_size for file in (home / COMPILED).rglob("*") if file.is_file()),
        "compiled_limit": MAX_COMPILED_BYTES,
        "journals": len(list((home / JOURNALS).glob("*.jsonl"))),
    }


def clear_cache(home: Path, *, checkpoints: bool = False) -> dict[str, int]:
    """Remove every record and all compiled code, with `checkpoints` the journals too; return how many there were.

    Files that are not ours are left alone.
    """
    folder = home / RESULTS
    found = [file for file, _ in records(folder)]
    journals = list((home / JOURNALS).glob("*.jsonl")) if checkpoints else []
    for file in (*found, *folder.glob(f"{TEMPORARY}*"), *journals):
        file.unlink(missing_ok=True)
    shutil.rmtree(home / COMPILED, ignore_errors=True)
    return {"results": len(found), "journals": len(journals)}


def records(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a folder that are records by their name, each with its status."""
    for file in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if RECORD.fullmatch(file.name) and stat.S_ISREG((status := file.lstat()).st_mode):
                yield file, status
