"""The one append-only, crash-safe record that collection, campaign and tuning resume from.

A line is `{"crc":"0f3a9c21","entry":{...}}`, and its crc32 covers the entry's bytes: a torn or damaged line is found,
never believed. One process at a time writes a journal; its callers hold the lock that sees to that.
"""

from __future__ import annotations

import errno
import math
import os
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import orjson

_MARK = b'{"crc":"'
_HEAD = len(_MARK + b'00000000","entry":')


class Journal:
    """Keys of which work began, and the records of those whose work ended.

    Opening replays what is there: a torn last line is cut off, a damaged line before it is skipped and counted.

    Args:
        path: the file; it and the folders above it are created where they are missing.

    Attributes:
        damaged: how many lines were skipped.

    Raises:
        ValueError: the file is there and is no journal; it is left as it is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.damaged = 0
        self._ended: dict[str, dict[str, Any]] = {}
        self._in_flight: set[str] = set()
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        data = b"" if is_new else self.path.read_bytes()
        n_kept = self._replay(data)
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        if n_kept < len(data):
            os.ftruncate(self._fd, n_kept)
        if is_new:
            _sync_folder(self.path.parent)

    def start(self, key: str) -> None:
        """Record that work on `key` begins."""
        self._append({"start": key}, sync=False)

    def end(self, key: str, record: dict[str, Any]) -> None:
        """Record the result of `key`; when this returns, it is on the disk.

        Args:
            key: what was worked on, whether or not its start was recorded; a later result replaces an earlier one.
            record: JSON values; floats come back bit for bit, tuples as lists.

        Raises:
            ValueError: a float is NaN or infinite, which JSON cannot hold.
            TypeError: a value is no JSON value.
        """
        self._append({"end": key, "record": _json(record, "record")}, sync=True)

    def drop(self, key: str) -> None:
        """Forget the record of `key`, so that it is worked on again."""
        self._append({"drop": key}, sync=True)

    @property
    def ended(self) -> Mapping[str, dict[str, Any]]:
        """The records by key: a live, read-only view."""
        return MappingProxyType(self._ended)

    @property
    def in_flight(self) -> set[str]:
        """The keys whose work began and has not ended: now, or when an earlier process was killed."""
        with self._lock:
            return set(self._in_flight)

    def __contains__(self, key: object) -> bool:
        return key in self._ended

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._ended[key]

    def close(self) -> None:
        """Close the file; what was recorded can still be read."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _append(self, entry: dict[str, Any], sync: bool) -> None:
        body = orjson.dumps(entry)
        line = _frame(body) + b"\n"
        with self._lock:
            if self._fd < 0:
                raise ValueError(f"journal: {self.path} is closed")
            n_before = os.lseek(self._fd, 0, os.SEEK_END)
            # One write on an O_APPEND descriptor: a SIGKILL leaves at most a torn last line.
            if os.write(self._fd, line) < len(line):
                # The next line must not be glued to the torn one: that would damage both.
                os.ftruncate(self._fd, n_before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            if sync:
                os.fsync(self._fd)
            # Read back, so that a run that goes on and one that resumes see the same values.
            self._apply(orjson.loads(body))

    def _replay(self, data: bytes) -> int:
        """Apply the lines of `data` and say how many bytes of it to keep."""
        *lines, torn = data.split(b"\n")
        entries = [_entry(line) for line in lines]
        # A short file may be a first line torn within its mark. Anything else that is no journal is somebody's file.
        if not any(entries) and not data.startswith(_MARK[: len(data)]):
            raise ValueError(f"journal: {self.path} is not a journal; name another file or remove this one")
        n_kept = len(data) - len(torn)
        if entries and entries[-1] is None and not torn:
            n_kept -= len(lines[-1]) + 1
            entries.pop()
        for entry in entries:
            if entry is None:
                self.damaged += 1
            else:
                self._apply(entry)
        return n_kept

    def _apply(self, entry: dict[str, Any]) -> None:
        if "start" in entry:
            self._in_flight.add(entry["start"])
        elif "drop" in entry:
            self._ended.pop(entry["drop"], None)
        else:
            self._in_flight.discard(entry["end"])
            self._ended[entry["end"]] = entry["record"]


def _frame(body: bytes) -> bytes:
    return b'{"crc":"%08x","entry":%b}' % (zlib.crc32(body), body)


def _entry(line: bytes) -> dict[str, Any] | None:
    """The entry in a line, None where the line is not exactly what would have been written."""
    body = line[_HEAD:-1]
    return orjson.loads(body) if body and line == _frame(body) else None


def _json(value: Any, where: str) -> Any:
    """`value` in plain JSON types; orjson would write NaN as null and knows no subclass of float."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"journal: {where}: not a finite number: {value}")
        return float(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _json(item, f"{where}.{key}") for key, item in value.items()}
    raise TypeError(f"journal: {where}: expected a JSON value, got {type(value).__name__}")


def _sync_folder(folder: Path) -> None:
    """A new file survives a power cut only when its folder is on the disk too."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
