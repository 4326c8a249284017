"""Runs benchmarks, each in a process of its own, and prints one table of what is required and what was reached.

    surrogate bench [NAME]... [--quick] [--fresh]

What each of them prints stays in `.surrogate/bench`.
"""

import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.rows import FOLDER, ROOT, options
from tasks.machine import machine

NAMES = (
    "degenerate",
    "performance",
    "tuning",
    "forests",
    "networks",
    "gates",
    "coating",
    "devices",
    "tuned",
    "large",
    "surrogates",
    "optimizers",
)
"""The quickest first: those of minutes, and of hours."""


def described() -> str:
    """The machine and the libraries whose speed is measured."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines() if cpu.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = psutil.virtual_memory().total / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy", "scipy", "scikit-learn"))
    return (
        f"{platform.system()} on {platform.machine()}, {model or 'unknown processor'}, {machine()['threads']} CPUs, "
        f"{memory:.0f} GiB; Python {platform.python_version()}, {libraries}"
    )


def lines_of(name: str, arguments: Sequence[str]) -> Iterator[str]:
    """What a benchmark prints, errors too, as it prints it.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-u", "-m", f"benchmarks.{name}", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        yield from process.stdout
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def verdicts(lines: Sequence[str]) -> list[tuple[str, str]]:
    """What was required and reached, and yes or NO, of the lines that say so."""
    found = []
    for line in lines:
        told, _, verdict = line.rstrip().rpartition("   ")
        if verdict in ("yes", "NO"):
            found.append((" ".join(told.split()), verdict))
    return found


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 where all have run, whatever they found."""
    asked = options("surrogate bench", arguments, NAMES, "NAME")
    flags = [flag for flag, is_set in (("--quick", asked.quick), ("--fresh", asked.fresh)) if is_set]
    about, table, status = described(), list[tuple[str, str, str]](), 0
    print(f"{about}\n", flush=True)
    try:
        for name in asked.parts:
            began, lines = time.monotonic(), list[str]()
            print(f"== {name}", flush=True)
            try:
                for line in lines_of(name, flags):
                    lines.append(line)
                    print(line, end="", flush=True)
                found = verdicts(lines) or [("nothing is required of it; its table is above", "")]
            except subprocess.CalledProcessError as error:
                found, status = [*verdicts(lines), (f"failed with exit status {error.returncode}", "NO")], 1
            FOLDER.mkdir(parents=True, exist_ok=True)
            (FOLDER / f"{name}.txt").write_text(f"{about}\n\n{''.join(lines)}", encoding="utf-8")
            table += [(name, told, verdict) for told, verdict in found]
            print(f"== {name}: {time.monotonic() - began:.0f} s\n", flush=True)
    except KeyboardInterrupt:
        print("interrupted: finished rows are kept, and the same command goes on\n")
        status = 130
    print(about + (", quick: of a part of the rows" if asked.quick else ""))
    for name, told, verdict in table:
        print(f"{name:12s} {verdict:4s} {told}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
