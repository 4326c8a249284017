"""What benchmarks share: options; verdicts; and a journal of finished rows, so that a run that was stopped goes on."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from surrogate_core.journal import Journal

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".surrogate" / "bench"


def options(
    program: str, arguments: Sequence[str], parts: Iterable[str] = (), metavar: str = "PART"
) -> argparse.Namespace:
    """What is asked of a benchmark, or of all: `quick`, `fresh`, and which of its `parts`, by default all."""
    parser, known = argparse.ArgumentParser(prog=program), list(parts)
    if known:
        parser.add_argument("parts", nargs="*", metavar=metavar, help=f"some of {', '.join(known)}; by default all")
    parser.add_argument("--quick", action="store_true", help="a small part, in about a minute")
    parser.add_argument("--fresh", action="store_true", help="forget the rows that are there")
    asked = parser.parse_args(arguments)
    if known:
        if unknown := [part for part in asked.parts if part not in known]:
            parser.error(f"{metavar}: expected some of {', '.join(known)}, got {unknown[0]!r}")
        asked.parts = asked.parts or known
    return asked


def judged(told: str, is_met: bool | None) -> str:
    """A line of what is required and what was reached; the suite's table has those that end like this.

    None is for what cannot be judged, such as a rate of few rows, or is not required.
    """
    return told if is_met is None else f"{told}   {'yes' if is_met else 'NO'}"


def journal(name: str, about: Any, fresh: bool) -> Journal:
    """The rows of a benchmark.

    Args:
        name: of the benchmark.
        about: all that a row depends on; with another `repr`, rows are in another file.
        fresh: whether what is there is thrown away.
    """
    path = FOLDER / f"{name}-{digest(repr(about).encode())}.jsonl"
    if fresh:
        path.unlink(missing_ok=True)
    return Journal(path)


def row(journal: Journal, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row of a key, made only if it is not there; `seconds` is what making it took."""
    if key not in journal:
        journal.start(key)
        began = time.perf_counter()
        made = make()
        journal.end(key, {**made, "seconds": time.perf_counter() - began})
    return journal[key]


def alone(module: str, *arguments: Any, limit: float, **variables: str) -> dict[str, Any]:
    """What a module prints last, as JSON, run in a process of its own without JAX's cache of compiled programs.

    The keywords are variables of its environment.

    Raises:
        subprocess.SubprocessError: it failed, or took longer than the limit, in seconds.
    """
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false", **variables}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit, check=True
    )
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def sources(*folders: Path) -> str:
    """Digest of the Python files in folders."""
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return digest(b"\0".join(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() for path in files))
