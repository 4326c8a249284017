"""What has been tried, by whichever process: a set of signatures, of which each is granted to one claim alone."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from numbers import Real
from typing import Any, NoReturn, Protocol, Self
from weakref import WeakSet


class PlaceNotReached(ConnectionError):
    """No server answers at the place, or it lets nobody in."""

    def __init__(self, server: str, url: str, error: Exception) -> None:
        why = next(iter(str(error).splitlines()), "") or "no answer"
        super().__init__(f"place: expected a {server} server that answers, got {without_password(url)!r} ({why})")


class DuplicateGuard:
    """The signatures that have been tried, and what came of them, for all processes that name the same place.

    Any number of threads and processes may use it at once, each by a connection of its own. It travels to other
    processes as its place and name. What a call has returned, no kill of a process undoes; when the power fails, a file
    stays whole and may lack the last calls, and of a server its settings decide.

    Args:
        place: the path of a SQLite file on a disk of this machine, which is made where there is none; or the URL of a
            Redis server (`redis://host:port/0`, `rediss://`, `unix://`) or of a database that SQLAlchemy knows
            (`postgresql+psycopg://user@host/database`, `sqlite:///file`).
        name: of the study; the same signature may be tried by each.

    Raises:
        ValueError: it is no such place, what is there is damaged or something else, or a package is missing.
        OSError: it cannot be reached or written. So too from every method; `PlaceNotReached` where it is a server.
    """

    def __init__(self, place: str | os.PathLike[str], *, name: str = "default") -> None:
        self.place, self.name = _place(place), _text("name", name)
        self._store = _store(self.place, self.name)
        self._store.connect()
        _guards.add(self)

    def seen(self, signature: str) -> bool:
        """Whether it has been tried or claimed."""
        return self._store.seen(_text("signature", signature))

    def seen_batch(self, signatures: Iterable[str]) -> list[bool]:
        """The same of many, in their order, at one moment."""
        return self._store.seen_batch(_texts(signatures))

    def add(self, signature: str, value: float | None = None) -> bool:
        """Puts down that it has been tried, and whether that is new; where it is not, nothing changes.

        Raises:
            ValueError: the value is not a finite number.
        """
        return self._store.add(_text("signature", signature), None if value is None else _number(value))

    def add_batch(self, signatures: Iterable[str]) -> int:
        """Puts down many, all or none of them, and how many are new."""
        return self._store.add_batch(_texts(signatures))

    def remove(self, signature: str) -> bool:
        """Forgets that it has been tried, and what came of it, and whether it was known."""
        return self._store.remove(_text("signature", signature))

    def claim(self, signature: str) -> bool:
        """Whether it is the caller's to try: of all who claim it, it is granted to one.

        A claim that is broken off by an error may have been granted; then it is granted to nobody else.
        """
        return self._store.add(_text("signature", signature), None)

    def record(self, signature: str, value: float) -> None:
        """Puts down what came of it, in place of what was put down before, whether it was claimed or not.

        Raises:
            ValueError: the value is not a finite number.
        """
        self._store.record(_text("signature", signature), _number(value))

    def value(self, signature: str) -> float | None:
        """What came of it, bit for bit; None where nothing has been put down yet."""
        return self._store.value(_text("signature", signature))

    def __len__(self) -> int:
        return self._store.count()

    def __contains__(self, signature: object) -> bool:
        return isinstance(signature, str) and self.seen(signature)

    def close(self) -> None:
        """Closes the connections of all threads; afterwards every call is a ValueError."""
        store, self._store = self._store, _Closed(self.place)
        store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, str]:
        return {"place": self.place, "name": self.name}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.place, self.name = state["place"], state["name"]
        self._store = _store(self.place, self.name)  # which connects when it is first used
        _guards.add(self)

    def __repr__(self) -> str:
        return f"DuplicateGuard({without_password(self.place)!r}, name={self.name!r})"


class Store(Protocol):
    """A kind of place; the methods are those of the guard, of arguments that are as they should be."""

    def connect(self) -> None: ...
    def seen(self, signature: str) -> bool: ...
    def seen_batch(self, signatures: list[str]) -> list[bool]: ...
    def add(self, signature: str, value: float | None) -> bool: ...
    def add_batch(self, signatures: list[str]) -> int: ...
    def remove(self, signature: str) -> bool: ...
    def record(self, signature: str, value: float) -> None: ...
    def value(self, signature: str) -> float | None: ...
    def count(self) -> int: ...
    def close(self) -> None: ...


def without_password(url: str) -> str:
    """A URL that may be shown."""
    return re.sub(r"([?&]\w*password=)[^&]*", r"\1***", re.sub(r"(://[^:/@]*:).*@", r"\1***@", url))


def _store(place: str, name: str) -> Store:
    scheme, _, _ = place.partition("://")
    if scheme == place:
        from surrogate_core.tuning.guard_sqlite import SQLiteStore

        return SQLiteStore(place, name)
    if scheme in ("redis", "rediss", "unix"):
        from surrogate_core.tuning.guard_redis import RedisStore

        return RedisStore(place, name)
    from surrogate_core.tuning.guard_sql import SQLStore

    return SQLStore(place, name)


def _place(place: object) -> str:
    """A URL, or an absolute path: the working folder of another process may be another."""
    if not isinstance(place, str | os.PathLike) or not os.fspath(place):
        raise ValueError(f"place: expected a path or a URL, got {place!r}")
    text = os.fspath(place)
    if not isinstance(text, str) or "\0" in text:
        raise ValueError(f"place: expected a path or a URL, got {place!r}")
    if isinstance(place, os.PathLike) or "://" not in text:
        return os.path.realpath(text)
    if re.match(r"sqlite(\+pysqlite)?://", text):
        file = re.sub(r"^[^:]*:///?|\?.*$", "", text)
        if file in ("", ":memory:"):
            raise ValueError(f"place: expected a file, which processes can share, got {text!r}")
        return os.path.realpath(file)
    return text


def _text(field: str, text: object) -> str:
    if isinstance(text, str) and text and (text.isascii() or _is_unicode(text)):
        return text
    raise _refused(field, text)


def _texts(signatures: Iterable[str]) -> list[str]:
    if isinstance(signatures, str | bytes):
        raise ValueError(f"signatures: expected several, got {signatures!r}")
    texts = list(signatures)
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text or not (text.isascii() or _is_unicode(text)):
            raise _refused(f"signatures[{i}]", text)
    return texts


def _is_unicode(text: str) -> bool:
    """Whether it can be written down; a half of a pair of surrogates cannot."""
    return not re.search("[\ud800-\udfff]", text)


def _refused(field: str, text: object) -> ValueError:
    return ValueError(f"{field}: expected a text that is not empty, got {text!r}")


def _number(value: Any) -> float:
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise ValueError(f"value: expected a finite number, got {value!r}")


class _Closed:
    def __init__(self, place: str) -> None:
        self._place = place

    def close(self) -> None:
        """Once more."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ValueError(f"guard: {without_password(self._place)} is closed")


_guards: WeakSet[DuplicateGuard] = WeakSet()
_inherited: list[Store] = []


def _leave_connections_to_the_parent() -> None:
    """After a fork: two processes on one connection damage a database, as does closing it in the second."""
    for guard in list(_guards):
        if not isinstance(guard._store, _Closed):
            _inherited.append(guard._store)
            guard._store = _store(guard.place, guard.name)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_connections_to_the_parent)
