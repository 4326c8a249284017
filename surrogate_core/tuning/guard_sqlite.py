"""Signatures in a SQLite file: a write-ahead log, a connection a thread, and a memory of what is known to be there.

The settings and sizes are those that were fastest when measured. What is known to be there is told without a system
call; that is right for as long as nobody has removed anything, which `Removals` tells.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any
from weakref import WeakSet

from surrogate_core.tuning.removals import Removals

PATIENCE = 120.0
"""Seconds for which a writer waits for others."""
MAX_KNOWN = 100_000
"""Signatures that are remembered, some 12 MB; with more, all are forgotten."""
_ROWS = 500  # of a statement: as many values at once cost half of what they do one by one

_SETTINGS = (
    f"busy_timeout = {PATIENCE * 1000:.0f}",
    "synchronous = NORMAL",  # nothing waits for the disk, but every 4000 pages; a kill loses nothing even so
    "wal_autocheckpoint = 4000",
    "temp_store = MEMORY",
    "cache_size = -16384",  # KiB, of a connection
)
# A value has no type, so that SQLite stores it as it is: in a REAL column, -0.0 is written as 0.
_TABLE = """CREATE TABLE IF NOT EXISTS surrogate_tried (
    name TEXT NOT NULL, signature TEXT NOT NULL, value, PRIMARY KEY (name, signature)) WITHOUT ROWID"""
_SEEN = "SELECT 1 FROM surrogate_tried WHERE name = ? AND signature = ?"
_VALUE = "SELECT value FROM surrogate_tried WHERE name = ? AND signature = ?"
_COUNT = "SELECT count(*) FROM surrogate_tried WHERE name = ?"
_ADD = "INSERT INTO surrogate_tried VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_RECORD = "INSERT INTO surrogate_tried VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
_REMOVE = "DELETE FROM surrogate_tried WHERE name = ? AND signature = ?"


class SQLiteStore:
    """Signatures of a name in a file.

    Args:
        path: an absolute one.
        name: of the study.
    """

    def __init__(self, path: str, name: str) -> None:
        self._path, self._name = path, name
        self._local = threading.local()
        self._connections: WeakSet[_Connection] = WeakSet()
        self._connecting = threading.Lock()
        self._known: tuple[int, set[str]] = (0, set())

    def connect(self) -> None:
        """Sees to it that this thread has a connection."""
        self._mine.ask("SELECT 1")

    def seen(self, signature: str) -> bool:
        mine = self._mine
        asof, known = self._known
        if signature in known and mine.removals.n_begun == asof:
            return True
        asof = mine.removals.n_settled
        is_there = bool(mine.ask(_SEEN, (self._name, signature)))
        if is_there:
            self._remember(asof, (signature,))
        return is_there

    def seen_batch(self, signatures: list[str]) -> list[bool]:
        mine, there = self._mine, set[str]()
        with mine.transaction("DEFERRED"):
            for keys in _parts(signatures):
                places = ",".join("?" * len(keys))
                sql = f"SELECT signature FROM surrogate_tried WHERE name = ? AND signature IN ({places})"
                there.update([key for (key,) in mine.ask(sql, (self._name, *keys))])
        return [signature in there for signature in signatures]

    def add(self, signature: str, value: float | None) -> bool:
        mine = self._mine
        asof, known = self._known
        if signature in known and mine.removals.n_begun == asof:
            return False
        asof = mine.removals.n_settled
        is_new = mine.do(_ADD, (self._name, signature, value)) > 0
        self._remember(asof, (signature,))
        return is_new

    def add_batch(self, signatures: list[str]) -> int:
        mine, n_new = self._mine, 0
        asof = mine.removals.n_settled
        with mine.transaction("IMMEDIATE"):
            for keys in _parts(signatures):
                places = ",".join([f"(?1, ?{i})" for i in range(2, len(keys) + 2)])
                sql = f"INSERT INTO surrogate_tried (name, signature) VALUES {places} ON CONFLICT DO NOTHING"
                n_new += mine.do(sql, (self._name, *keys))
        self._remember(asof, signatures)
        return n_new

    def remove(self, signature: str) -> bool:
        mine = self._mine
        removal = 0
        try:
            with mine.transaction("IMMEDIATE"):
                was_there = mine.do(_REMOVE, (self._name, signature)) > 0
                if was_there:
                    removal = mine.removals.begin()
        finally:
            if removal:
                mine.removals.end(removal)
        return was_there

    def record(self, signature: str, value: float) -> None:
        self._mine.do(_RECORD, (self._name, signature, value))

    def value(self, signature: str) -> float | None:
        rows = self._mine.ask(_VALUE, (self._name, signature))
        return rows[0][0] if rows else None

    def count(self) -> int:
        return int(self._mine.ask(_COUNT, (self._name,))[0][0])

    def close(self) -> None:
        with self._connecting:
            for connection in list(self._connections):
                connection.close()

    @property
    def _mine(self) -> _Connection:
        try:
            return self._local.connection
        except AttributeError:
            with self._connecting:
                self._local.connection = connection = _Connection(self._path)
                self._connections.add(connection)
            return connection

    def _remember(self, asof: int, signatures: Iterable[str]) -> None:
        """That they were there after so many removals, if none was under way when the database was asked."""
        if asof < 0:
            return
        then, known = self._known
        if then != asof or len(known) > MAX_KNOWN:
            known = set()
            self._known = asof, known
        known.update(islice(signatures, MAX_KNOWN))


class _Connection:
    """A thread's; it is closed when the thread ends, as nothing else holds it then."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        except OSError as error:
            why = f"expected the path of a SQLite file, got {path} ({error.strerror})"
            raise ValueError(f"place: {why}") from error
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise _told(error, path) from error
        self._execute = self._connection.execute
        try:
            for setting in _SETTINGS:
                self.ask(f"PRAGMA {setting}")
            self._log_ahead()
            if not self.ask("SELECT 1 FROM sqlite_master WHERE name = 'surrogate_tried'"):
                with self.transaction("IMMEDIATE"):
                    self.do(_TABLE)
            self.ask(_VALUE, ("", ""))  # is it a table like ours?
            self.removals = self._count_removals(f"{path}-removals")
        except BaseException:
            self._connection.close()
            raise

    def ask(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise _told(error, self._path) from error

    def do(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """How many rows it has changed."""
        try:
            return self._execute(sql, parameters).rowcount
        except sqlite3.Error as error:
            raise _told(error, self._path) from error

    @contextmanager
    def transaction(self, kind: str) -> Iterator[None]:
        """All or nothing; an immediate one waits for other writers before it has read anything, so that it may."""
        self.do(f"BEGIN {kind}")
        try:
            yield
            self.do("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self.do("ROLLBACK")
            raise

    def close(self) -> None:
        self._connection.close()

    def __del__(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()

    def _log_ahead(self) -> None:
        """While another writes to the file, such as who makes it, SQLite refuses this without waiting: we must wait."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                mode = self._execute("PRAGMA journal_mode = WAL").fetchone()[0]
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise _told(error, self._path) from error
                time.sleep(0.01)
            except sqlite3.Error as error:
                raise _told(error, self._path) from error
        if mode != "wal":
            raise ValueError(f"place: expected a file on a disk of this machine, got {self._path} (no write-ahead log)")

    def _count_removals(self, path: str) -> Removals:
        if not Removals.are_at(path):
            with self.transaction("IMMEDIATE"):
                Removals.begin_at(path)
        return Removals(path)


def _parts(signatures: Iterable[str]) -> Iterator[list[str]]:
    """In the order of the table's tree, in which neighbours share a page."""
    keys = sorted(set(signatures))
    for i in range(0, len(keys), _ROWS):
        yield keys[i : i + _ROWS]


def _told(error: sqlite3.Error, path: str) -> Exception:
    """What an error of SQLite's is to the callers."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    if code == sqlite3.SQLITE_IOERR:
        return OSError(errno.EIO, str(error), path)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TimeoutError(errno.ETIMEDOUT, f"still written by others after {PATIENCE:g} s", path)
    return ValueError(f"place: expected a SQLite database that can be written, got {path} ({error})")
