"""A black box named in a settings file: imported where it is called, known by the digest of its source."""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BlackBox:
    """A function by its name `package.module:name`, called with a point's parameters.

    It travels to worker processes as its name, and is imported there as it arrives: before any call, whose time limit
    the import is no part of. The working folder is searched last, so that a user's own module is found and shadows
    nothing.

    Args:
        target: the name.
        names: of the parameters, where they are known: the function is held to them as it arrives.
    """

    target: str
    names: tuple[str, ...] | None = None

    def __reduce__(self) -> tuple[Callable[..., "BlackBox"], tuple[Any, ...]]:
        return _arrived, (self.target, self.names)

    def __call__(self, params: Mapping[str, Any]) -> Any:
        return call_with(self.resolve(), params)

    def check(self, as_keywords: bool = False) -> None:
        """Finds out whether it can be called; a black box also with one dict.

        Raises:
            ValueError: there is no such function, or it does not take the parameters.
        """
        function = self.resolve()
        if self.names is not None:
            check_signature(function, self.names, self.target, as_keywords)

    def resolve(self) -> Callable[..., Any]:
        """The function itself.

        Raises:
            ValueError: the name is not of the form, or nothing callable is found under it.
        """
        module_name, separator, name = self.target.partition(":")
        if not (module_name and separator and name):
            raise ValueError(f"expected package.module:name, got {self.target!r}")
        _search_here()
        try:
            function = getattr(importlib.import_module(module_name), name)
        except (Exception, SystemExit) as error:  # a module may be a script that ends by itself
            raise ValueError(f"expected an importable function, got {self.target!r} ({error})") from error
        if not callable(function):
            raise ValueError(f"expected a function, got {self.target!r}, a {type(function).__name__}")
        return function

    def source(self) -> Path | None:
        """The file of its module; None where there is none."""
        _search_here()
        try:
            found = importlib.util.find_spec(self.target.partition(":")[0])
        except (ImportError, ValueError, AttributeError):
            return None
        return Path(found.origin) if found is not None and found.has_location and found.origin else None


def call_with(function: Callable[..., Any], params: Mapping[str, Any]) -> Any:
    """Calls a function with parameters as keywords, or as one dict, where its one parameter has none of their names."""
    return function(dict(params)) if _takes_a_dict(function, tuple(params)) else function(**params)


def check_signature(function: Callable[..., Any], names: Sequence[str], target: str, as_keywords: bool = False) -> None:
    """Raise ValueError unless the function can be called with parameters of these names, or with one dict of them."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin tells nothing of itself
        return
    if not as_keywords and _takes_a_dict(function, tuple(names)):
        return
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        dict_too = "" if as_keywords else ", or of one dict"
        raise ValueError(
            f"expected a function of {', '.join(names)}, as the space names them{dict_too}, got "
            f"{target}{signature} ({error})"
        ) from error


def _takes_a_dict(function: Callable[..., Any], names: tuple[str, ...]) -> bool:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    if len(parameters) != 1 or parameters[0].name in names:
        return False
    return parameters[0].kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _arrived(target: str, names: tuple[str, ...] | None) -> BlackBox:
    black_box = BlackBox(target, names)
    black_box.check()
    return black_box


def _search_here() -> None:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def identity(sources: Sequence[Path], version: int | str) -> str:
    """Digest of what the black box is: the content of its sources, files or folders, and its stated version."""
    digest = hashlib.sha256(f"{version!r}\n".encode())
    for source in sources:
        inside = (path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        for path in sorted(inside) if source.is_dir() else [source]:
            digest.update(f"{path.relative_to(source.parent).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()
