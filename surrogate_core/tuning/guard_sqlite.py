"""Signatures in a SQLite file: a write-ahead log, a connection a thread, and snapshots for many lookups.

The settings and sizes are those that were fastest when measured. Most of a lookup would go to the locks by which SQLite
begins to read. Where one follows another they share a snapshot, which is right until something changes: all processes
count their changes in memory that they share (`Changes`).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from _thread import start_new_thread
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from surrogate_core.tuning.changes import Changes

PATIENCE = 120.0
"""Seconds for which a writer waits for others."""
SNAPSHOT = 0.1
"""Seconds for which one is kept at most: as long as there is one, nobody can begin the log anew, which grows."""
_IN_A_ROW = 5  # lookups without a change between, which are worth a snapshot: to end it in time takes a thread
_ROWS = 500  # of a statement: as many values at once cost half of what they do one by one

_SETTINGS = (
    f"busy_timeout = {PATIENCE * 1000:.0f}",
    "synchronous = NORMAL",  # nothing waits for the disk, but every 4000 pages; a kill loses nothing even so
    "wal_autocheckpoint = 4000",
    "temp_store = MEMORY",
    "cache_size = -16384",  # KiB, of a connection
    "mmap_size = 268435456",  # of the file: first lookups, which would copy pages, are a tenth faster
)
# A value has no type, so that SQLite stores it as it is: in a REAL column, -0.0 is written as 0.
_TABLE = """CREATE TABLE IF NOT EXISTS surrogate_tried (
    name TEXT NOT NULL, signature TEXT NOT NULL, value, PRIMARY KEY (name, signature)) WITHOUT ROWID"""
_SEEN = "SELECT 1 FROM surrogate_tried WHERE name = ? AND signature = ?"
_VALUE = "SELECT value FROM surrogate_tried WHERE name = ? AND signature = ?"
_COUNT = "SELECT count(*) FROM surrogate_tried WHERE name = ?"
# A statement that writes holds SQLite's lock from before its first row to its commit: a function that is called in it
# counts the change in time, and spares the two more statements of a transaction.
_ADD = "INSERT INTO surrogate_tried SELECT ?, ?, ? WHERE surrogate_change() ON CONFLICT DO NOTHING"
_RECORD = """INSERT INTO surrogate_tried SELECT ?, ?, ? WHERE surrogate_change()
    ON CONFLICT DO UPDATE SET value = excluded.value"""
_REMOVE = "DELETE FROM surrogate_tried WHERE name = ? AND signature = ? AND surrogate_change()"


class SQLiteStore:
    """Signatures of a name in a file.

    Args:
        path: an absolute one.
        name: of the study.
    """

    def __init__(self, path: str, name: str) -> None:
        self._path, self._name = path, name
        self._local: threading.local | None = threading.local()

    def connect(self) -> None:
        """Sees to it that this thread has a connection."""
        self._mine.ask("SELECT 1")

    def seen(self, signature: str) -> bool:
        return self._mine.look(_SEEN, (self._name, signature)) is not None

    def seen_batch(self, signatures: list[str]) -> list[bool]:
        mine, there = self._mine, set[str]()
        with mine.transaction("DEFERRED"):
            for keys in _parts(signatures):
                places = ",".join("?" * len(keys))
                sql = f"SELECT signature FROM surrogate_tried WHERE name = ? AND signature IN ({places})"
                there.update([key for (key,) in mine.ask(sql, (self._name, *keys))])
        return [signature in there for signature in signatures]

    def add(self, signature: str, value: float | None) -> bool:
        return self._mine.change(_ADD, (self._name, signature, value)) > 0

    def add_batch(self, signatures: list[str]) -> int:
        mine, n_new = self._mine, 0
        try:
            with mine.transaction("IMMEDIATE"):
                for keys in _parts(signatures):
                    places = ",".join([f"(?1, ?{i})" for i in range(2, len(keys) + 2)])
                    sql = f"INSERT INTO surrogate_tried (name, signature) VALUES {places} ON CONFLICT DO NOTHING"
                    n_new += mine.do(sql, (self._name, *keys))
                if n_new:
                    mine.changes.begin()
        finally:
            mine.changes.end()
        return n_new

    def remove(self, signature: str) -> bool:
        return self._mine.change(_REMOVE, (self._name, signature)) > 0

    def record(self, signature: str, value: float) -> None:
        self._mine.change(_RECORD, (self._name, signature, value))

    def value(self, signature: str) -> float | None:
        row = self._mine.look(_VALUE, (self._name, signature))
        return None if row is None else row[0]

    def count(self) -> int:
        row = self._mine.look(_COUNT, (self._name,))
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        """Connections of other threads are held by nothing now but the calls they are in, amid which they must stay."""
        if hasattr(self._local, "connection"):
            self._mine.close()
        self._local = None

    @property
    def _mine(self) -> _Connection:
        local = self._local
        try:
            return local.connection  # type: ignore[union-attr]
        except AttributeError:
            if local is None:
                raise ValueError(f"guard: {self._path} is closed") from None
            local.connection = connection = _Connection(self._path)
            return connection


class _Connection:
    """A thread's; it is closed when the thread or the store ends, as nothing else holds it then."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._snapshot = threading.Lock()  # for who begins or ends one
        self._asof = -1  # the changes as of which there is one; -1 where there is none
        self._rest = -1, 0  # the changes of which the last lookup knew, and how many lookups have known of no more
        self._is_timed = False
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
        self._cursor = self._connection.cursor()  # to make one for each lookup would cost a tenth more
        self._run, self._fetch = self._cursor.execute, self._cursor.fetchone
        try:
            for setting in _SETTINGS:
                self.ask(f"PRAGMA {setting}")
            self._log_ahead()
            if not self.ask("SELECT 1 FROM sqlite_master WHERE name = 'surrogate_tried'"):
                with self.transaction("IMMEDIATE"):
                    self.do(_TABLE)
            self.ask(_VALUE, ("", ""))  # is it a table like ours?
            self.changes = self._count_changes(f"{path}-changes")
            self._connection.create_function("surrogate_change", 0, self.changes.begin)
        except BaseException:
            self._connection.close()
            raise

    def look(self, sql: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        """The first row, from a snapshot where that pays.

        Another thread may end the snapshot at any moment; then what is read is the set as it is by now.
        """
        if self._asof != self.changes.counts[0]:
            self._look_anew()
        try:
            self._run(sql, parameters)
            row: tuple[Any, ...] | None = self._fetch()
        except sqlite3.Error as error:
            raise _told(error, self._path) from error
        return row

    def change(self, sql: str, parameters: Sequence[Any]) -> int:
        """What `do` tells of a statement that counts its change."""
        if self._asof >= 0:
            self._end_snapshot()
        try:
            self._run(sql, parameters)
            return self._cursor.rowcount
        except sqlite3.Error as error:
            raise _told(error, self._path) from error
        finally:
            self.changes.end()

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
        self._end_snapshot()
        try:
            self.do(f"BEGIN {kind}")
            yield
            self.do("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self.do("ROLLBACK")
            raise

    def close(self) -> None:
        with self._snapshot:
            self._asof = -1
            self._connection.close()

    def __del__(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()

    def _look_anew(self) -> None:
        """Ends a snapshot that something has changed since, and begins one once nothing has for some lookups."""
        self._end_snapshot()
        n = self.changes.n_ended  # read before there is a snapshot, which then has all of these
        if n != self.changes.n_begun:
            return
        asof, n_lookups = self._rest
        self._rest = n, n_lookups + 1 if asof == n else 1
        if self._rest[1] > _IN_A_ROW and sqlite3.threadsafety == 3:  # that is, another thread may end it
            with self._snapshot:
                if not self._is_timed:
                    try:
                        start_new_thread(self._end_in_time, ())  # which a Timer waits for, at ten times the price
                    except RuntimeError:  # no more threads, or Python ends
                        return
                    self._is_timed = True
                self._asof = n  # first: an interrupt must leave no transaction of which nobody knows
                self.do("BEGIN")

    def _end_snapshot(self) -> None:
        if self._asof >= 0:
            with self._snapshot:
                self._leave()

    def _end_in_time(self) -> None:
        time.sleep(SNAPSHOT)
        with self._snapshot:
            self._is_timed = False
            self._leave()

    def _leave(self) -> None:
        if self._asof >= 0:
            with suppress(sqlite3.ProgrammingError):  # it is closed
                if self._connection.in_transaction:  # which an error may have ended
                    self.do("COMMIT")
            self._asof = -1  # last: from now on, its thread may begin to write

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

    def _count_changes(self, path: str) -> Changes:
        if not Changes.are_at(path):
            with self.transaction("IMMEDIATE"):
                Changes.begin_at(path)
        return Changes(path)


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
