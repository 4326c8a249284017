"""Trials, and where they are kept: a study's journal, or a folder of files `trial_*.json`."""

from __future__ import annotations

import gc
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shown
from typing import Any, Literal, get_args

import orjson
from cachetools import LRUCache

from surrogate_core.journal import HEAD, body_of, lines_of
from surrogate_core.tuning.identity import trial_key
from surrogate_core.tuning.merge import copied

Record = Mapping[str, Any]
Status = Literal["ok", "failed", "pruned", "running"]
PREFIX = "trial/"  # of a trial's key in a journal


@dataclass(frozen=True, slots=True)
class Trial:
    """One design and what came of it.

    Attributes:
        number: in the order of proposals, from 0.
        params: the design.
        value: NaN where it failed or is running; of a pruned one the mean of its steps.
        status: what became of it.
        reason: one line that says why it failed.
        steps: values of its steps, such as folds; none where there is one step alone.
        raw: what the sampler proposed, in the order that the space asks for it.
    """

    number: int
    params: Mapping[str, Any]
    value: float
    status: Status
    reason: str = ""
    steps: tuple[float, ...] = ()
    raw: tuple[Any, ...] | None = None

    @property
    def key(self) -> str:
        return trial_key(self.params)

    def to_record(self) -> dict[str, Any]:
        """As JSON values, but for the number, which is the key; what goes without saying is left out."""
        record: dict[str, Any] = {"params": self.params, "value": self.value if math.isfinite(self.value) else None}
        if self.status != _status_of(record["value"]):
            record["status"] = self.status
        if self.reason:
            record["reason"] = self.reason
        if self.steps:
            record["steps"] = [step if math.isfinite(step) else None for step in self.steps]
        if self.raw is not None:
            record["raw"] = self.raw
        return record

    @classmethod
    def from_record(cls, record: Record, number: int = 0) -> Trial:
        """The trial that `to_record` wrote.

        Raises:
            ValueError: it is no such record; the message names what is wrong with it.
        """
        _check(record)
        value, steps, raw = record.get("value"), record.get("steps"), record.get("raw")
        return cls(
            record.get("number", number),
            record["params"],
            math.nan if value is None else float(value),
            record.get("status") or _status_of(value),
            record.get("reason") or "",
            tuple([math.nan if step is None else float(step) for step in steps]) if steps else (),
            tuple(raw) if raw is not None else None,
        )


def _status_of(value: float | None) -> Status:
    """What goes without saying."""
    return "failed" if value is None else "ok"


_NOTHING = type(None)
_NUMBERS = {float, int, _NOTHING}
_LISTS = {list, tuple, _NOTHING}
_FIELDS: dict[str, tuple[set[Any], str]] = {
    "params": ({dict}, "an object"),
    "value": (_NUMBERS, "a number or null"),
    "status": ({str, _NOTHING}, f"one of {', '.join(get_args(Status))}"),
    "reason": ({str, _NOTHING}, "a text"),
    "steps": (_LISTS, "a list of numbers"),
    "raw": (_LISTS, "a list"),
    "number": ({int}, "an integer"),
}
_STATUSES = {*get_args(Status), None}


def _check(record: Any) -> None:
    """Raises:
    ValueError: a record is none of a trial.
    """
    if type(record) is not dict or "params" not in record:
        raise ValueError(f"params: expected an object, got none in {shown(record)}")
    for name, given in record.items():
        field = _FIELDS.get(name)
        if field is not None and (
            type(given) not in field[0]
            or (name == "status" and given not in _STATUSES)
            or (name == "steps" and given and not _NUMBERS.issuperset(map(type, given)))
        ):
            raise ValueError(f"{name}: expected {field[1]}, got {shown(given)}")


class Trials(Mapping[str, Trial]):
    """Trials by key, in the order they were found.

    The keys are numbers, as text, or what the names of files have between `trial_` and `.json`.

    Attributes:
        damaged: what was passed over, a line each that says where and why.
    """

    def __init__(self, found: Mapping[str, Any], read: Callable[[Any], Record], damaged: list[str]) -> None:
        self._found, self._read, self.damaged = found, read, damaged

    def __getitem__(self, key: str) -> Trial:
        """The trial of a key.

        Raises:
            KeyError: there is none.
            ValueError, OSError: it was not looked at yet, and is damaged, or there no longer.
        """
        return Trial.from_record(self._read(self._found[key]), int(key) if key.isdecimal() else 0)

    def __contains__(self, key: object) -> bool:
        return key in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def load_trials(path: str | os.PathLike[str], *, lazy: bool = False, n_threads: int | None = None) -> Trials:
    """The trials of a journal, running ones too, or of the files `trial_*.json` of a folder.

    The last files that were parsed, `SURROGATE_JSON_CACHE_SIZE` of them (by default 256), are not parsed again while
    their time and size stay, unless there are more to load; `SURROGATE_JSON_CACHE=0` has them always parsed.

    Args:
        path: of the file or the folder; neither is changed, and a journal may be in use.
        lazy: only keys are wanted: no trial is parsed yet, and what is wrong with one is found when it is asked for.
        n_threads: that parse files. By default one, or more where it turns out that reading waits for a disk or a
            network: files at hand are sooner read by one, as threads wait for each other.

    Raises:
        ValueError: it is neither, or a variable of the environment is not as it should be.
    """
    if n_threads is not None and (type(n_threads) is not int or n_threads < 1):
        raise ValueError(f"n_threads: expected an integer >= 1, got {n_threads!r}")
    place = Path(path).absolute()
    try:
        if place.is_dir():
            return _of_folder(place, lazy, n_threads)
        data = place.read_bytes()
    except OSError as error:
        raise ValueError(f"path: expected a journal or a folder of trials, got {path} ({error.strerror})") from error
    with _without_collection():
        return _of_journal(data, place, lazy)


def _of_journal(data: bytes, path: Path, lazy: bool) -> Trials:
    lines, n_torn = lines_of(data, path)
    damaged = [f"{path}: the last line is torn"] if n_torn else []
    ended: dict[bytes, Any] = {}
    begun: dict[bytes, int] = {}
    for number, line in enumerate(lines):
        if line.startswith(_START, HEAD):
            begun[line[_OF_START : line.find(b'"', _OF_START)]] = number
        elif (body := body_of(line)) is None:
            damaged.append(f"{path}: line {number + 1} is damaged")
        elif body.startswith(_END):
            key = body[_OF_END : body.index(b'"', _OF_END)]
            ended[key] = body if lazy else _record_in(body)
            begun.pop(key, None)
        elif body.startswith(_DROP):
            ended.pop(body[len(_DROP) : -2], None)
    for key, number in begun.items():
        if (body := body_of(lines[number])) is None:  # of one that has ended it makes no difference
            damaged.append(f"{path}: line {number + 1} is damaged")
        elif key not in ended:
            ended[key] = body if lazy else _record_in(body)
    if lazy:
        return Trials({key.decode(): body for key, body in ended.items()}, _record_in, damaged)
    records = {}
    for key, record in ended.items():
        try:
            _check(record)
            records[key.decode()] = record
        except ValueError as error:
            damaged.append(f"{path}: {PREFIX}{key.decode()}: {error}")
    return Trials(records, _as_it_is, damaged)


_END, _START, _DROP = (b'{"%b":"%b' % (verb, PREFIX.encode()) for verb in (b"end", b"start", b"drop"))
_OF_END, _OF_START = len(_END), HEAD + len(_START)  # where the number is


def _record_in(body: bytes) -> Record:
    entry = orjson.loads(body)
    if "end" in entry:
        return entry["record"]
    return {**(entry.get("what") or {}), "status": "running"}


def _as_it_is(record: Record) -> Record:
    return record


def _of_folder(folder: Path, lazy: bool, n_threads: int | None) -> Trials:
    n_cached = _cache_size()
    names = [name for name in os.listdir(folder) if name.startswith("trial_") and name.endswith(".json")]
    names.sort()
    names.sort(key=len)  # numbers in their order, with leading zeros and without
    paths = {name[6:-5]: f"{folder}{os.sep}{name}" for name in names if name[6:-5]}
    if lazy:
        return Trials(paths, _read_cached, [])
    read = _read_cached if len(paths) <= n_cached else _read

    def parse(part: Sequence[str]) -> list[Record | str]:
        told: list[Record | str] = []
        for path in part:
            try:
                told.append(read(path))
            except (OSError, ValueError) as error:
                told.append(str(error))
        return told

    with _without_collection():
        first, rest = list(paths.values())[:LOOK], list(paths.values())[LOOK:]
        began, worked = time.perf_counter(), time.thread_time()
        told = parse(first)
        if n_threads is None:
            waited = time.perf_counter() - began > 2 * (time.thread_time() - worked)
            n_threads = min(8, 2 * (os.cpu_count() or 1)) if waited else 1
        if n_threads == 1:
            told += parse(rest)
        else:
            size = max(1, math.ceil(len(rest) / (4 * n_threads)))
            with ThreadPoolExecutor(n_threads) as pool:
                for part in pool.map(parse, [rest[i : i + size] for i in range(0, len(rest), size)]):
                    told += part
    records = {key: record for key, record in zip(paths, told, strict=True) if not isinstance(record, str)}
    return Trials(records, _as_it_is, [record for record in told if isinstance(record, str)])


LOOK = 32
"""Files by which is judged whether reading waits."""


def _read(path: str) -> Record:
    fd = os.open(path, os.O_RDONLY)
    try:
        content = os.read(fd, _PIECE)
        if len(content) == _PIECE:
            pieces = [content]
            while piece := os.read(fd, _PIECE):
                pieces.append(piece)
            content = b"".join(pieces)
    except OSError as error:  # it does not say of which file
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(fd)
    try:
        record: Record = orjson.loads(content)
        _check(record)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return record


_PIECE = 1 << 16
_files: LRUCache[tuple[str, int, int], Record] = LRUCache(maxsize=256)
_files_lock = threading.Lock()


def _read_cached(path: str) -> Record:
    """The same, of which the last ones are remembered; the caller may change it."""
    global _files
    size = _cache_size()
    if size == 0:
        return _read(path)
    stat = os.stat(path)
    place = path, stat.st_mtime_ns, stat.st_size
    with _files_lock:
        if _files.maxsize != size:
            _files = LRUCache(maxsize=size)
        record = _files.get(place)
    if record is None:
        record = _read(path)
        with _files_lock:
            _files[place] = record
    return copied(record)


def _cache_size() -> int:
    """Of the cache of files, 0 where it is switched off.

    Raises:
        ValueError: a variable of the environment is not as it should be.
    """
    switch = os.environ.get("SURROGATE_JSON_CACHE", "1")
    if switch.lower() not in _ON + _OFF:
        raise ValueError(f"SURROGATE_JSON_CACHE: expected 1 or 0, got {switch!r}")
    size = os.environ.get("SURROGATE_JSON_CACHE_SIZE", "256")
    if not size.isdecimal():
        raise ValueError(f"SURROGATE_JSON_CACHE_SIZE: expected an integer >= 0, got {size!r}")
    return 0 if switch.lower() in _OFF else int(size)


_ON, _OFF = ("1", "true", "on", "yes"), ("0", "false", "off", "no")


@contextmanager
def _without_collection() -> Iterator[None]:
    """Many small dicts at once have Python look for cycles again and again, where there are none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
