"""A black box named in a settings file: imported where it is called, known by the digest of its source."""

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BlackBox:
    """A function by its name `package.module:name`, called with a point's parameters as keywords.

    It travels to worker processes as its name, and is imported there as it arrives: before any call, whose time limit
    the import is no part of. The working folder is searched last, so that a user's own module is found and shadows
    nothing.
    """

    target: str

    def __reduce__(self) -> tuple[Callable[[str], "BlackBox"], tuple[str]]:
        return _arrived, (self.target,)

    def __call__(self, params: Mapping[str, Any]) -> Any:
        return self.resolve()(**params)

    def resolve(self) -> Callable[..., Any]:
        """The function itself.

        Raises:
            ValueError: the name is not of the form, or nothing callable is found under it.
        """
        module_name, separator, name = self.target.partition(":")
        if not (module_name and separator and name):
            raise ValueError(f"expected package.module:name, got {self.target!r}")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            function = getattr(importlib.import_module(module_name), name)
        except Exception as error:
            raise ValueError(f"expected an importable function, got {self.target!r} ({error})") from error
        if not callable(function):
            raise ValueError(f"expected a function, got {self.target!r}, a {type(function).__name__}")
        return function


def _arrived(target: str) -> BlackBox:
    black_box = BlackBox(target)
    black_box.resolve()
    return black_box


def identity(source: Path, version: int | str) -> str:
    """Digest of what the black box is: the content of its source, a file or a folder, and its stated version."""
    digest = hashlib.sha256(f"{version!r}\n".encode())
    inside = (path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    for path in sorted(inside) if source.is_dir() else [source]:
        digest.update(f"{path.relative_to(source.parent).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()
