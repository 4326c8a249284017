"""Predictions that are remembered: values of functions of points, in memory, bounded, safe among threads."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Hashable
from functools import partial
from typing import Any, Literal, get_args

import cachetools
import numpy as np

CacheType = Literal["lru", "lfu", "ttl"]


class SurrogateCache:
    """Values by point and operation.

    A value is known by the bytes of the point, its type and shape, the operation and the model: a point that differs in
    its last bit is another one, unless points are rounded.

    Args:
        max_size: entries that are kept.
        policy: which entry goes when there are more: `lru` the one that was not asked for longest; `lfu` the one that
            was asked for least, where what was asked for long ago counts less and less (LFU with dynamic ageing:
            Arlitt et al. 2000, Performance Evaluation Review 27(4), 3); `ttl` the oldest, and none lives longer than
            `ttl`.
        ttl: seconds that an entry lives, with policy `ttl`.
        decimals: points are rounded to so many; None for not at all.
        model: what tells the values of one model from those of another, such as a digest of it.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> cache = SurrogateCache(max_size=2)
        >>> cache.set(np.array([1.0, 2.0]), "predict", 3.0)
        >>> cache.get(np.array([1.0, 2.0]), "predict"), cache.get(np.array([1.0, 2.5]), "predict")
        (3.0, None)
        >>> cache.statistics["hits"], cache.statistics["misses"]
        (1, 1)
    """

    def __init__(
        self,
        max_size: int = 1000,
        policy: CacheType = "lru",
        *,
        ttl: float = 3600.0,
        decimals: int | None = None,
        model: Hashable = None,
    ):
        if not isinstance(max_size, int) or isinstance(max_size, bool) or max_size < 1:
            raise ValueError(f"max_size: expected an integer >= 1, got {max_size!r}")
        if policy not in get_args(CacheType):
            known = ", ".join(map(repr, get_args(CacheType)))
            raise ValueError(f"policy: expected one of {known}, got {policy!r}")
        if not ttl > 0:
            raise ValueError(f"ttl: expected a number of seconds > 0, got {ttl!r}")
        if decimals is not None and (not isinstance(decimals, int) or isinstance(decimals, bool)):
            raise ValueError(f"decimals: expected None or an integer, got {decimals!r}")
        self.max_size = max_size
        self.policy = policy
        self.ttl = ttl
        self.decimals = decimals
        self.model = model
        self._entries = _entries(policy, max_size, ttl)
        self._hits = self._misses = self._evictions = 0
        self._lock = threading.Lock()

    def get(self, x: Any, operation: str) -> Any:
        """What was set for a point and an operation; None where that is not known."""
        return self.get_key(self.key(x, operation))

    def set(self, x: Any, operation: str, value: Any) -> None:
        """Remembers a value; of an array a copy that nobody can write to."""
        self.set_key(self.key(x, operation), value)

    def key(self, x: Any, operation: str) -> Hashable:
        """What a value is known by."""
        x = np.asarray(x)
        if self.decimals is not None:
            x = np.round(x, self.decimals) + 0.0  # -0.0 is 0.0
        return self.model, operation, x.dtype.char, x.shape, x.tobytes()

    def get_key(self, key: Hashable) -> Any:
        """As `get`, for whoever has made the key already."""
        with self._lock:
            value = self._entries.get(key)
            if value is None:
                self._misses += 1
            else:
                self._hits += 1
            return value

    def set_key(self, key: Hashable, value: Any) -> None:
        """As `set`, for whoever has made the key already."""
        if isinstance(value, np.ndarray):
            value = value.copy()
            value.flags.writeable = False
        with self._lock:
            n_expected = len(self._entries) + (key not in self._entries)
            self._entries[key] = value
            self._evictions += n_expected - len(self._entries)

    def clear(self) -> None:
        """Forgets all values; the statistics go on."""
        with self._lock:
            self._entries = _entries(self.policy, self.max_size, self.ttl)

    def __len__(self) -> int:
        return len(self._entries)

    def __reduce__(self) -> Any:
        """In another process it begins empty."""
        how: dict[str, Any] = {"ttl": self.ttl, "decimals": self.decimals, "model": self.model}
        return partial(SurrogateCache, self.max_size, self.policy, **how), ()

    @property
    def statistics(self) -> dict[str, Any]:
        """`hits`, `misses`, `hit_rate`, `evictions`, `size` and `max_size`."""
        with self._lock:
            asked = self._hits + self._misses
            return {
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": self._hits / asked if asked else 0.0,
                "evictions": self._evictions,
                "size": len(self._entries),
                "max_size": self.max_size,
            }


class _LFU(cachetools.Cache):
    """An entry is worth how often it was asked for, plus what the last one that went was worth when it came in."""

    def __init__(self, maxsize: int) -> None:
        super().__init__(maxsize)
        self._uses: dict[Hashable, tuple[int, float, int]] = {}  # count, worth, tick
        self._heap: list[tuple[float, int, Hashable]] = []  # void with an older tick than the entry's
        self._age = 0.0
        self._ticks = itertools.count()

    def __getitem__(self, key: Hashable) -> Any:
        value = super().__getitem__(key)
        self._used(key)
        return value

    def __setitem__(self, key: Hashable, value: Any) -> None:
        super().__setitem__(key, value)
        self._used(key)

    def __delitem__(self, key: Hashable) -> None:
        super().__delitem__(key)
        del self._uses[key]

    def popitem(self) -> tuple[Hashable, Any]:
        while True:
            worth, tick, key = heapq.heappop(self._heap)
            if self._uses.get(key, (0, 0.0, -1))[2] == tick:
                self._age, value = worth, super().__getitem__(key)
                del self[key]
                return key, value

    def _used(self, key: Hashable) -> None:
        count = self._uses.get(key, (0, 0.0, 0))[0] + 1
        worth, tick = count + self._age, next(self._ticks)
        self._uses[key] = count, worth, tick
        heapq.heappush(self._heap, (worth, tick, key))
        if len(self._heap) > 4 * self.maxsize + 64:
            self._heap = [(worth, tick, key) for key, (_, worth, tick) in self._uses.items()]
            heapq.heapify(self._heap)


def _entries(policy: CacheType, max_size: int, ttl: float) -> Any:
    if policy == "ttl":
        return cachetools.TTLCache(max_size, ttl, timer=time.monotonic)
    return cachetools.LRUCache(max_size) if policy == "lru" else _LFU(max_size)
