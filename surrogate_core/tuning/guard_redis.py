"""Signatures in a Redis server: the fields of one hash, each with the text of its value, empty where there is none."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from surrogate_core.tuning.guard import PlaceNotReached, without_password

SECONDS = 30.0
"""In which the server answers."""
_FIELDS = 10_000  # of a command


class RedisStore:
    """Signatures of a name in a server.

    Args:
        url: of the server.
        name: of the study.

    Raises:
        ValueError: it is no URL of a server, or there is no package `redis`.
    """

    def __init__(self, url: str, name: str) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ModuleNotFoundError as error:
            why = "a Redis server needs redis, got none: pip install 'surrogate-lab[redis]'"
            raise ValueError(f"place: {why}") from error
        self._url, self._errors = url, redis
        self._key = f"surrogate:{name}:tried"
        # Nothing is sent twice: a claim that was granted, and whose answer was lost, would then be granted to nobody.
        patience: dict[str, Any] = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS}
        try:
            self._redis = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), health_check_interval=30, **patience)
        except ValueError as error:
            raise ValueError(f"place: expected redis://host:port/0, got {without_password(url)!r} ({error})") from error

    def connect(self) -> None:
        with self._told():
            self._redis.ping()

    def seen(self, signature: str) -> bool:
        with self._told():
            return bool(self._redis.hexists(self._key, signature))

    def seen_batch(self, signatures: list[str]) -> list[bool]:
        with self._told(), self._redis.pipeline() as batch:
            for i in range(0, len(signatures), _FIELDS):
                batch.hmget(self._key, signatures[i : i + _FIELDS])
            return [value is not None for values in batch.execute() for value in values]

    def add(self, signature: str, value: float | None) -> bool:
        with self._told():
            return bool(self._redis.hsetnx(self._key, signature, "" if value is None else repr(value)))

    def add_batch(self, signatures: list[str]) -> int:
        with self._told(), self._redis.pipeline() as batch:  # a transaction
            for signature in signatures:
                batch.hsetnx(self._key, signature, "")
            return sum(batch.execute())

    def remove(self, signature: str) -> bool:
        with self._told():
            return bool(self._redis.hdel(self._key, signature))

    def record(self, signature: str, value: float) -> None:
        with self._told():
            self._redis.hset(self._key, signature, repr(value))

    def value(self, signature: str) -> float | None:
        with self._told():
            value = self._redis.hget(self._key, signature)
        return float(value) if value else None

    def count(self) -> int:
        with self._told():
            return int(self._redis.hlen(self._key))

    def close(self) -> None:
        self._redis.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the client's as what they are to the callers."""
        try:
            yield
        except (self._errors.ConnectionError, self._errors.TimeoutError) as error:
            raise PlaceNotReached("Redis", self._url, error) from error
        except self._errors.RedisError as error:  # it has no memory left, cannot save, or has something else there
            why = f"expected {self._key!r} to be kept, got {error}"
            raise OSError(errno.EIO, f"place: {why}", without_password(self._url)) from error
