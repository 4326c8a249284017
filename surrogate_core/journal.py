"""The one append-only, crash-safe record that collection, campaign and tuning resume from.

A line is `{"crc":"0f3a9c21","entry":{...}}`, and its crc32 covers the entry's bytes: a torn or damaged line is found,
never believed. One process at a time writes a journal; its callers hold the lock that sees to that.
"""

from __future__ import annotations

import errno
import math
import os
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import orjson

_MARK = b'{"crc":"'
HEAD = len(_MARK + b'00000000","entry":')
"""Of a line, before its entry."""


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
        self._begun: dict[str, tuple[int, Any]] = {}
        self._synced, self._due = time.monotonic(), math.inf  # when it was brought to the disk, and when it must be
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

    def start(self, key: str, what: Any = None) -> None:
        """Record that work on `key` begins.

        Args:
            key: what is worked on.
            what: more of it, as JSON values, for those who find it unfinished.

        Raises:
            ValueError, TypeError: as of `end`.
        """
        entry = {"start": key} if what is None else {"start": key, "what": _json(what, "what")}
        self._append(entry, every=math.inf)  # what is lost with it is only that it began

    def end(self, key: str, record: dict[str, Any], every: float = 0.0) -> None:
        """Record the result of `key`, which no kill of this process can undo when this returns.

        Args:
            key: what was worked on, whether or not its start was recorded; a later result replaces an earlier one.
            record: JSON values; floats come back bit for bit, tuples as lists.
            every: seconds within which results are brought to the disk together, as that takes milliseconds. Those
                that were recorded since may be lost when the power fails; by default none are.

        Raises:
            ValueError: a float is NaN or infinite, which JSON cannot hold.
            TypeError: a value is no JSON value.
        """
        self._append({"end": key, "record": _json(record, "record")}, every)

    def drop(self, key: str) -> None:
        """Forget the record of `key`, so that it is worked on again."""
        self._append({"drop": key}, every=0.0)

    def interrupt(self, key: str) -> None:
        """Record that work on `key` was broken off in good order: it is in flight still, but was not begun in vain."""
        self._append({"interrupt": key}, every=math.inf)

    @property
    def ended(self) -> Mapping[str, dict[str, Any]]:
        """The records by key: a live, read-only view."""
        return MappingProxyType(self._ended)

    @property
    def in_flight(self) -> set[str]:
        """The keys whose work began and has not ended: now, or when an earlier process was killed."""
        with self._lock:
            return set(self._begun)

    def begun(self, key: str) -> tuple[int, Any]:
        """How often work on `key` began since it last ended, interrupts aside, and what was said of it last."""
        return self._begun.get(key, (0, None))

    def __contains__(self, key: object) -> bool:
        return key in self._ended

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._ended[key]

    def close(self) -> None:
        """Close the file; what was recorded can still be read."""
        with self._lock:
            if self._fd >= 0:
                if self._due < math.inf:
                    os.fsync(self._fd)
                os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _append(self, entry: dict[str, Any], every: float) -> None:
        body = orjson.dumps(entry)
        line = _framed(body) + b"\n"
        with self._lock:
            if self._fd < 0:
                raise ValueError(f"journal: {self.path} is closed")
            n_before = os.lseek(self._fd, 0, os.SEEK_END)
            # One write on an O_APPEND descriptor: a SIGKILL leaves at most a torn last line.
            if os.write(self._fd, line) < len(line):
                # The next line must not be glued to the torn one: that would damage both.
                os.ftruncate(self._fd, n_before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            self._due = min(self._due, self._synced + every)
            if time.monotonic() >= self._due:
                os.fsync(self._fd)
                self._synced, self._due = time.monotonic(), math.inf
            # Read back, so that a run that goes on and one that resumes see the same values.
            self._apply(orjson.loads(body))

    def _replay(self, data: bytes) -> int:
        """Apply the lines of `data` and say how many bytes of it to keep."""
        lines, n_torn = lines_of(data, self.path)
        for line in lines:
            body = body_of(line)
            if body is None:
                self.damaged += 1
            else:
                self._apply(orjson.loads(body))
        return len(data) - n_torn

    def _apply(self, entry: dict[str, Any]) -> None:
        if "start" in entry:
            times, _ = self._begun.get(entry["start"], (0, None))
            self._begun[entry["start"]] = times + 1, entry.get("what")
        elif "interrupt" in entry:
            times, what = self._begun.get(entry["interrupt"], (1, None))
            self._begun[entry["interrupt"]] = times - 1, what
        elif "drop" in entry:
            self._ended.pop(entry["drop"], None)
        else:
            self._begun.pop(entry["end"], None)
            self._ended[entry["end"]] = entry["record"]


def lines_of(data: bytes, path: Path) -> tuple[list[bytes], int]:
    """The lines of a journal's content, and the length of what was torn off or damaged at its end.

    Raises:
        ValueError: it is no journal's; the message names the path.
    """
    *lines, torn = data.split(b"\n")
    # A short file may be a first line torn within its mark. Anything else that is no journal is somebody's file.
    if not data.startswith(_MARK[: len(data)]) and not any(body_of(line) for line in lines):
        raise ValueError(f"journal: {path} is not a journal; name another file or remove this one")
    n_torn = len(torn)
    if lines and not torn and body_of(lines[-1]) is None:
        n_torn = len(lines.pop()) + 1
    return lines, n_torn


def body_of(line: bytes) -> bytes | None:
    """The entry in a line, None where the line is not exactly what would have been written."""
    body = line[HEAD:-1]
    return body if body and line == _framed(body) else None


def _framed(body: bytes) -> bytes:
    return b'{"crc":"%08x","entry":%b}' % (zlib.crc32(body), body)


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
