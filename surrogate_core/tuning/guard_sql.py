"""Signatures in a database of any dialect that SQLAlchemy knows: one table, whose key says what is not new."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b

import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
    TimeoutError,
)

from surrogate_core.tuning.guard import PlaceNotReached, without_password

_TABLE = sa.Table(
    "surrogate_tried",
    sa.MetaData(),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("signature", sa.String(64), primary_key=True),
    sa.Column("value", sa.Double),
)
_ROWS = 1000  # of a question: databases bound the number of its parameters


class SQLStore:
    """Signatures of a name in a database.

    Args:
        url: of the database.
        name: of the study.

    Raises:
        ValueError: it is no URL of a database, or the package is missing by which it is reached.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, _key(name)
        try:
            self._engine = sa.create_engine(url, pool_pre_ping=True)  # servers hang up on those who are long silent
        except (ArgumentError, NoSuchModuleError, ValueError) as error:
            why = "expected a path, or a URL redis://... or of a database that SQLAlchemy knows"
            raise ValueError(f"place: {why}, got {without_password(url)!r} ({error})") from error
        except ModuleNotFoundError as error:
            why = f"expected a database whose driver is installed, got {without_password(url)!r} (no {error.name})"
            cure = "for postgresql+psycopg://... it is brought by pip install 'surrogate-lab[postgresql]'"
            raise ValueError(f"place: {why}; {cure}") from error

    def connect(self) -> None:
        """Sees to it that there is a table like ours."""
        with self._told():
            try:
                _TABLE.create(self._engine, checkfirst=True)
            except DBAPIError:
                if not sa.inspect(self._engine).has_table(_TABLE.name):  # else another has just made it
                    raise
            with self._engine.connect() as connection:
                connection.execute(sa.select(_TABLE).limit(0))

    def seen(self, signature: str) -> bool:
        return self.seen_batch([signature])[0]

    def seen_batch(self, signatures: list[str]) -> list[bool]:
        keys = [_key(signature) for signature in signatures]
        with self._told(), self._engine.begin() as connection:
            there = self._there(connection, keys)
        return [key in there for key in keys]

    def add(self, signature: str, value: float | None) -> bool:
        return self._add([signature], value) > 0

    def add_batch(self, signatures: list[str]) -> int:
        return self._add(signatures, None)

    def remove(self, signature: str) -> bool:
        with self._told(), self._engine.begin() as connection:
            return connection.execute(sa.delete(_TABLE).where(self._is(signature))).rowcount > 0

    def record(self, signature: str, value: float) -> None:
        is_done = False
        while not is_done:
            with self._told(), self._engine.begin() as connection:
                update = sa.update(_TABLE).where(self._is(signature)).values(value=value)
                is_done = connection.execute(update).rowcount > 0
            is_done = is_done or self.add(signature, value)

    def value(self, signature: str) -> float | None:
        with self._told(), self._engine.begin() as connection:
            return connection.scalar(sa.select(_TABLE.c.value).where(self._is(signature)))

    def count(self) -> int:
        count = sa.select(sa.func.count()).select_from(_TABLE).where(_TABLE.c.name == self._name)
        with self._told(), self._engine.begin() as connection:
            return int(connection.scalar(count) or 0)

    def close(self) -> None:
        self._engine.dispose()

    def _add(self, signatures: Iterable[str], value: float | None) -> int:
        keys = sorted({_key(signature) for signature in signatures})  # in one order, so that no two wait for each other
        while True:
            with self._told(), suppress(IntegrityError), self._engine.begin() as connection:
                there = self._there(connection, keys)
                rows = [{"name": self._name, "signature": key, "value": value} for key in keys if key not in there]
                if rows:
                    connection.execute(sa.insert(_TABLE), rows)
                return len(rows)
            # Another has added one of them since they were looked for.

    def _there(self, connection: sa.Connection, keys: list[str]) -> set[str]:
        there: set[str] = set()
        for i in range(0, len(keys), _ROWS):
            is_one = _TABLE.c.signature.in_(keys[i : i + _ROWS])
            there.update(connection.scalars(sa.select(_TABLE.c.signature).where(_TABLE.c.name == self._name, is_one)))
        return there

    def _is(self, signature: str) -> sa.ColumnElement[bool]:
        return sa.and_(_TABLE.c.name == self._name, _TABLE.c.signature == _key(signature))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of SQLAlchemy's as what they are to the callers."""
        try:
            yield
        except (OperationalError, InterfaceError, TimeoutError) as error:
            raise PlaceNotReached("database", self._url, getattr(error, "orig", None) or error) from error
        except SQLAlchemyError as error:
            why = f"expected a database where {_TABLE.name} can be kept, got {without_password(self._url)!r}"
            raise ValueError(f"place: {why} ({getattr(error, 'orig', None) or error})") from error


def _key(text: str) -> str:
    """What a text is in the table: itself, if it is short and every database tells it from others, or its digest."""
    if re.fullmatch("[a-z0-9._-]{1,64}", text):
        return text
    return f"#{blake2b(text.encode(), digest_size=24).hexdigest()}"
