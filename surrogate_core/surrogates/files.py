"""A fitted surrogate as files: `model.safetensors` for its arrays, `model.json` for its spec; no pickle."""

import hashlib
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import orjson
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from surrogate_core.atomic import write_file
from surrogate_core.space import SearchSpace
from surrogate_core.surrogates.auto import AutoSurrogate
from surrogate_core.surrogates.base import FittedSurrogate, Surrogate
from surrogate_core.surrogates.gaussian_process import GPSurrogate
from surrogate_core.surrogates.hybrid import HybridSurrogate
from surrogate_core.surrogates.neural_network import NeuralSurrogate
from surrogate_core.surrogates.random_forest import RandomForestSurrogate

SCHEMA = 4
ARRAYS, SPEC = "model.safetensors", "model.json"
SURROGATES: dict[str, type[Surrogate]] = {
    spec.kind: spec for spec in (GPSurrogate, NeuralSurrogate, RandomForestSurrogate, HybridSurrogate, AutoSurrogate)
}


def surrogate_files(fitted: FittedSurrogate) -> dict[str, bytes]:
    """File name to content; equal surrogates give equal bytes."""
    saved = safetensors.save(_arrays(fitted.state))
    about = {
        "schema": SCHEMA,
        "arrays": hashlib.sha256(saved).hexdigest(),
        "surrogate": fitted.spec.to_config(),
        "asked": fitted.asked.to_config(),
        "space": fitted.space.to_config(),
        "diagnostics": fitted.diagnostics,
    }
    return {
        ARRAYS: saved,
        SPEC: orjson.dumps(about, option=orjson.OPT_INDENT_2) + b"\n",
    }


def surrogate_from_files(files: dict[str, bytes]) -> FittedSurrogate:
    """The inverse of `surrogate_files`: it predicts bit for bit what was saved.

    Raises:
        ValueError: a file is missing, damaged, or not one of ours.
    """
    try:
        about: dict[str, Any] = orjson.loads(files[SPEC])
        if about["schema"] != SCHEMA:
            raise ValueError(f"expected schema {SCHEMA}, got {about['schema']!r}")
        if hashlib.sha256(files[ARRAYS]).hexdigest() != about["arrays"]:
            raise ValueError(f"expected the {ARRAYS} that was saved with it, got another")
        spec, asked = (_spec(about[name]) for name in ("surrogate", "asked"))
        state = _state(spec.state_type, safetensors.load(files[ARRAYS]))
        return FittedSurrogate(spec, SearchSpace.from_config(about["space"]), state, about["diagnostics"], asked)
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        SafetensorError,
    ) as error:  # orjson's error is a ValueError
        raise ValueError(f"model: expected {ARRAYS} and {SPEC} as saved by this project, got {error!r}") from error


def save_surrogate(fitted: FittedSurrogate, folder: Path) -> None:
    """Writes the files of a fitted surrogate to a folder, made if need be, each whole or not at all."""
    for name, content in surrogate_files(fitted).items():
        write_file(folder / name, content)


def load_surrogate(folder: str | Path) -> FittedSurrogate:
    """Reads a fitted surrogate from a folder.

    Raises:
        ValueError: a file is missing, damaged, or not one of ours; the message names the folder.
    """
    paths = {name: Path(folder) / name for name in (ARRAYS, SPEC)}
    try:
        return surrogate_from_files({name: path.read_bytes() for name, path in paths.items()})
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: {error}") from error


def _arrays(state: Any, within: str = "") -> dict[str, np.ndarray]:
    """By their names in a tuple, `output.shift` of one within another."""
    made: dict[str, np.ndarray] = {}
    for name, value in state._asdict().items():
        made |= _arrays(value, f"{within}{name}.") if hasattr(value, "_fields") else {within + name: np.asarray(value)}
    return made


def _state(of: type, arrays: dict[str, np.ndarray], within: str = "") -> Any:
    """The inverse of `_arrays`."""
    parts = {
        name: _state(hint, arrays, f"{within}{name}.") if hasattr(hint, "_fields") else arrays[within + name]
        for name, hint in get_type_hints(of).items()
    }
    return of(**parts)


def _spec(config: dict[str, Any]) -> Surrogate:
    return SURROGATES[config["kind"]](**{name: value for name, value in config.items() if name != "kind"})
