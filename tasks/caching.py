"""Prefect's result cache for the stages: the files that a stage returns, kept without pickle, checked and bounded.

A record on disk is `sha256 LF name LF files`. It names no serializer: Prefect's reader obeys the one named in the file,
and `pickle` would run code. What does not check, or is not a stage's own files, is thrown away and computed again. A
checksum is no signature: who may write here may forge a stage's data, but never code.
"""

import base64
import contextlib
import functools
import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import orjson
from prefect import Task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.filesystems import LocalFileSystem
from prefect.serializers import Serializer
from prefect.transactions import IsolationLevel
from pydantic import Field, PrivateAttr

from surrogate_core.atomic import TEMPORARY, write_file
from tasks.files import StageFiles, check_files
from tasks.records import MAX_BYTES, RECORD, records

_SERIALIZER: Final = "surrogate-files"
_ABANDONED_SECONDS = 3600.0

_logger = logging.getLogger("surrogate.cache")


class CacheMiss(ValueError):
    """There is no usable record of that name."""


class FilesSerializer(Serializer):
    """Stage files as canonical JSON with base64 contents; anything else is refused, both ways."""

    type: Literal["surrogate-files"] = _SERIALIZER

    def dumps(self, obj: StageFiles) -> bytes:
        """Return the files as bytes, the same bytes for the same files."""
        check_files(obj)
        encoded = {path: base64.b64encode(content).decode() for path, content in obj.items()}
        return orjson.dumps(encoded, option=orjson.OPT_SORT_KEYS)

    def loads(self, blob: bytes) -> StageFiles:
        """Return the files that `dumps` made these bytes of."""
        files = dict(_decoded(blob))
        if _decoded.cache_info().hits:
            _decoded.cache_clear()
        return files


@functools.lru_cache(maxsize=1)  # when the storage has checked it, Prefect asks once more
def _decoded(blob: bytes) -> StageFiles:
    encoded = orjson.loads(blob)
    if not isinstance(encoded, dict) or not all(isinstance(text, str) for text in encoded.values()):
        raise ValueError("stage files: expected a JSON object of base64 texts")
    files = {path: base64.b64decode(text, validate=True) for path, text in encoded.items()}
    # Canonical or nothing: no doubled key, and no second spelling of a content, which could only be in its last bits.
    ends = all(encoded[path].endswith(base64.b64encode(_last(content)).decode()) for path, content in files.items())
    check_files(files)
    if not ends or orjson.dumps(encoded, option=orjson.OPT_SORT_KEYS) != blob:
        raise ValueError("stage files: expected the canonical encoding")
    return files


def _last(content: bytes) -> bytes:
    """What the last four letters of its base64 encode."""
    return content[-((len(content) - 1) % 3 + 1) :] if content else b""


class ResultStorage(LocalFileSystem):
    """A flat folder of checked records, the least recently used of which are removed above `max_bytes`."""

    _block_type_name = "Surrogate result cache"

    max_bytes: int = Field(default=MAX_BYTES, ge=0)
    outs: tuple[str, ...] | None = None  # the files and folders that a record may hold, and must; None for any

    def read_path(self, path: str, _sync: bool | None = None) -> bytes:  # type: ignore[override]
        """Return Prefect's record for one of ours, or raise CacheMiss; what is damaged or foreign is removed."""
        file = self._record_file(path)
        try:
            # A planted pipe would block for ever, and a link lead elsewhere.
            if not stat.S_ISREG(file.lstat().st_mode):
                raise ValueError("it is not a regular file")
            files = _unseal(file.name, file.read_bytes(), self.outs)
        except FileNotFoundError as error:
            raise CacheMiss(f"no cached result {file.name}") from error
        except (OSError, ValueError, TypeError) as error:
            _logger.warning("%s: not a usable cached result (%s); removed, the stage runs again", file, error)
            _discard(file)
            raise CacheMiss(f"no usable cached result {file.name}") from error
        now = time.time_ns()
        with contextlib.suppress(OSError):  # evicted by another process meanwhile: what was read is still right
            os.utime(file, ns=(now, now))
        return orjson.dumps({"metadata": {"serializer": {"type": _SERIALIZER}}, "result": files.decode()})

    async def aread_path(self, path: str) -> bytes:
        """As `read_path`."""
        return self.read_path(path)

    def write_path(self, path: str, content: bytes, _sync: bool | None = None) -> str:  # type: ignore[override]
        """Keep Prefect's record `content`, atomically; a full or read-only disk costs a warning, never a result."""
        file = self._record_file(path)
        record = orjson.loads(content)
        if record["metadata"]["serializer"] != {"type": _SERIALIZER}:
            raise ValueError(f"cached result: expected the serializer {_SERIALIZER!r}, got {record['metadata']}")
        try:
            write_file(file, _seal(file.name, record["result"].encode()))
            self._evict(keep=file.name)
        except OSError as error:
            _logger.warning("%s: the result could not be cached (%s)", file, error)
        return str(file)

    async def awrite_path(self, path: str, content: bytes) -> str:
        """As `write_path`."""
        return self.write_path(path, content)

    def _resolve_path(self, path: str) -> Path:
        # Prefect's own follows links, and then raises within the bookkeeping of a task. Any flat name comes here.
        folder = Path(self.basepath or ".").expanduser().resolve()
        name = os.path.relpath(path, folder) if os.path.isabs(path) else path
        if "/" in name or name == "..":
            raise ValueError(f"cached result: expected a name in {folder}, got {path!r}")
        return folder / name

    def _record_file(self, path: str) -> Path:
        file = self._resolve_path(path)
        if not RECORD.fullmatch(file.name):
            raise ValueError(f"cached result: expected a name like fit-0123456789abcdef, got {file.name!r}")
        return file

    def _evict(self, keep: str) -> None:
        folder = self._resolve_path("")
        for leftover in folder.glob(f"{TEMPORARY}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                    leftover.unlink()
        found = sorted(records(folder), key=lambda record: record[1].st_mtime_ns)
        total = sum(status.st_size for _, status in found)
        for file, status in found:
            if total <= self.max_bytes:
                break
            if file.name != keep:
                file.unlink(missing_ok=True)
                total -= status.st_size


class _OneCallStorage(ResultStorage):
    """The storage of one call: what Prefect's `exists` found is not read again, so it cannot be lost in between."""

    _block_type_name = "Surrogate result cache, one call"
    _seen: dict[str, bytes] = PrivateAttr(default_factory=dict)
    _is_current: Callable[[], bool] = PrivateAttr(default_factory=lambda: lambda: True)

    def read_path(self, path: str, _sync: bool | None = None) -> bytes:  # type: ignore[override]
        if path not in self._seen:
            self._seen[path] = super().read_path(path)
        return self._seen[path]

    def write_path(self, path: str, content: bytes, _sync: bool | None = None) -> str:  # type: ignore[override]
        if self._is_current():
            return super().write_path(path, content)
        file = self._record_file(path)
        _logger.warning("%s: not cached, for what it follows from was edited while it was computed", file.name)
        return str(file)


def _record_name(context: TaskRunContext, parameters: Mapping[str, Any]) -> str:
    return f"{context.task.name}-{parameters['key']}"


# Read committed: the same key at once is computed twice, harmless as writes are atomic. A lock would outlive a kill.
stage_policy = CacheKeyFnPolicy(cache_key_fn=_record_name, isolation_level=IsolationLevel.READ_COMMITTED)


def stage_options(stage: str) -> dict[str, Any]:
    """Return the keyword arguments for `@task(...)` of a cached stage, whose function takes a parameter named `key`."""
    if not RECORD.fullmatch(f"{stage}-{'0' * 16}"):
        raise ValueError(f"stage: expected lower-case letters, digits and underscores, got {stage!r}")
    return {
        "name": stage,
        "persist_result": True,
        "result_serializer": FilesSerializer(),
        "cache_policy": stage_policy,
        "cache_result_in_memory": False,
    }


def call_cached(
    task: Task[..., StageFiles],
    *,
    storage: ResultStorage,
    key: str,
    is_current: Callable[[], bool] = lambda: True,
    **parameters: Any,
) -> tuple[StageFiles, bool]:
    """Call a task made with `stage_options` and return its files and whether they came from the cache.

    Args:
        task: takes `key`, our hexadecimal digest of all that its result depends on, and the other `parameters`.
        storage: where the records are; nothing of it is saved on the server.
        is_current: asked before a result is kept: whether what `key` digests is still so.

    Raises:
        Whatever the task raised.
    """
    if not RECORD.fullmatch(f"{task.name}-{key}"):
        raise ValueError(f"key: expected 16 to 128 hexadecimal digits, got {key!r}")
    bound = task.with_options()
    # Given to with_options, a storage that is not saved on the server is refused; the engine itself takes any.
    one_call = _OneCallStorage(basepath=storage.basepath, max_bytes=storage.max_bytes, outs=storage.outs)
    one_call._is_current = is_current
    bound.result_storage = one_call
    logging.getLogger("prefect.task_runs").addFilter(_is_no_complaint_about_failures)
    state = bound(key=key, **parameters, return_state=True)
    files = state.result()
    check_files(files)
    return files, state.name == "Cached"


def _is_no_complaint_about_failures(record: logging.LogRecord) -> bool:
    # Prefect tries to persist a failed task's exception too, which our serializer refuses, as it should.
    return not record.getMessage().startswith("Failed to write result: Failed to serialize object")


def _seal(name: str, files: bytes) -> bytes:
    bound = name.encode() + b"\n" + files
    return hashlib.sha256(bound).hexdigest().encode() + b"\n" + bound


def _unseal(name: str, content: bytes, outs: tuple[str, ...] | None) -> bytes:
    checksum, _, bound = content.partition(b"\n")
    if hashlib.sha256(bound).hexdigest().encode() != checksum:
        raise ValueError("its checksum does not agree")
    inner, _, files = bound.partition(b"\n")
    if inner != name.encode():
        raise ValueError("it is the record of another key")
    check_files(FilesSerializer().loads(files), outs)
    return files


def _discard(file: Path) -> None:
    with contextlib.suppress(OSError):
        if file.is_dir() and not file.is_symlink():  # never ours: moved aside, not deleted
            file.rename(file.with_name(f".foreign-{file.name}-{time.time_ns()}"))
        else:
            file.unlink(missing_ok=True)
