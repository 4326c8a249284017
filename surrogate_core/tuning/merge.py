"""Nested mappings: one over another, such as what a user sets over the defaults, and one apart from another."""

from collections.abc import Mapping
from typing import Any


def deep_merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """A dict of both; where both have a dict they are merged, else the override's value counts.

    Only the dicts that are merged are new: all other values are base's and override's own, and neither is changed. It
    does not recurse, so nesting may be as deep as memory allows.
    """
    merged = dict(base)
    below = [(merged, override)]
    while below:
        target, source = below.pop()
        for key, value in source.items():
            if isinstance(value, dict):
                mine = target.get(key)
                if isinstance(mine, dict):
                    if value and mine is not value:
                        target[key] = mine = mine.copy()
                        below.append((mine, value))
                    continue
            target[key] = value
    return merged


def copied(value: Any) -> Any:
    """A value whose lists and dicts are new, so that who changes one does not change the other."""
    made = [value]
    below: list[Any] = [made]
    while below:
        container = below.pop()
        for key, item in container.items() if type(container) is dict else enumerate(container):
            kind = type(item)
            if kind is dict or kind is list:
                container[key] = mine = item.copy()
                below.append(mine)
            elif kind is tuple:
                container[key] = tuple(map(copied, item))
    return made[0]
