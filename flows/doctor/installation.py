"""Checks of what every project shares: Python and the libraries, the machine, and the environment's variables."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from flows.doctor.finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

DISTRIBUTION = "surrogate-lab"
LITTLE, TOO_LITTLE = 1_000_000_000, 100_000_000
"""Bytes of disk or memory below which work may, and will, fail."""

_MOVES = {
    "PREFECT_API_URL": "flow runs go to that server",
    "PREFECT_HOME": "Prefect's own settings are read there",
    "MLFLOW_TRACKING_URI": "runs are recorded there, not in mlruns/",
    "DVC_ROOT": "caches and records are those of that folder",
    "JAX_COMPILATION_CACHE_DIR": "compiled code is kept there and not bounded",
}
_YES, _NO = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
_GPUS = Path("/proc/driver/nvidia/gpus")


def python(_root: Path) -> Iterator[Finding]:
    """The interpreter against `requires-python`."""
    from packaging.specifiers import SpecifierSet

    tested, now = SpecifierSet(metadata(DISTRIBUTION)["Requires-Python"]), platform.python_version()
    if tested.contains(now, prereleases=True):
        yield ok("python", f"{now}, within the tested {_bounds(tested)}")
    else:
        cure = "make the environment anew with one that is: `rm -r .venv`, then `make run PYTHON=python3.13`"
        yield fail("python", f"{now} is not within the tested {_bounds(tested)}", cure)


def libraries(_root: Path) -> Iterator[Finding]:
    """Every direct dependency against the bounds that it was tested with."""
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(line) for line in requires(DISTRIBUTION) or ()]
    except PackageNotFoundError:
        yield fail("libraries", f"{DISTRIBUTION} is not installed", f"where its sources are: `{_pip('-e', '.')}`")
        return
    fine = 0
    for one in needed:
        if one.marker and not one.marker.evaluate({"extra": ""}):
            continue
        found = _version(one.name)
        if found and one.specifier.contains(found, prereleases=True):
            fine += 1
            continue
        bounds = _bounds(one.specifier)
        what = f"{found} is not within the tested {bounds}" if found else f"is missing; {bounds} was tested"
        yield fail("libraries", f"{one.name} {what}", f"`{_pip(one.name + bounds)}`")
    yield ok("libraries", f"{fine} that {DISTRIBUTION} {version(DISTRIBUTION)} needs are within their tested bounds")


def processor(_root: Path) -> Iterator[Finding]:
    """How many CPUs may be used, and the variables that change the last bits."""
    from tasks.machine import SETTINGS, machine

    yield ok("processor", f"{machine()['threads']} of {os.cpu_count()} usable, {platform.machine()}")
    for name in SETTINGS:
        if value := os.environ.get(name):
            found = f"{name}={value} is set: the last bits of results may differ from those made without it"
            yield warn("processor", found, f"`unset {name}`, or keep it the same for runs that are to agree")


def memory(_root: Path) -> Iterator[Finding]:
    """What is free."""
    import psutil

    now = psutil.virtual_memory()
    text = f"{now.available / 1e9:.1f} of {now.total / 1e9:.1f} GB free"
    yield _enough("memory", now.available, text, "end other programs, or lower execution.n_workers")


def disk(root: Path) -> Iterator[Finding]:
    """What is free below the project and the temporary folder, and whether the project can be written."""
    for folder in (root, root / ".surrogate"):
        if folder.exists() and not os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            cure = f"as its owner, `chmod u+w {shlex.quote(str(folder))}`; or work in another folder"
            yield fail("disk", f"{folder} cannot be written", cure)
    devices = set()
    for folder, what in ((root, "this folder"), (Path(tempfile.gettempdir()), "temporary files")):
        if (device := folder.stat().st_dev) not in devices:
            devices.add(device)
            free = shutil.disk_usage(folder).free
            yield _enough("disk", free, f"{free / 1e9:.1f} GB free for {what}, {folder}", f"make room below {folder}")


def gpu(_root: Path) -> Iterator[Finding]:
    """Whether there is an NVIDIA GPU that JAX would use."""
    cards = _cards()
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if not cards:
        yield ok("gpu", "no NVIDIA GPU: the CPU does the work")
        return
    named = ", ".join(cards)
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        yield ok("gpu", f"{named}; JAX_PLATFORMS={platforms} keeps the work off it")
        return
    cure = f"to use it: `{_pip('jax[cuda12]==' + version('jax'))}`"
    plugins = {name: found for name in ("jax-cuda12-plugin", "jax-cuda13-plugin") if (found := _version(name))}
    if not plugins:
        yield warn("gpu", f"{named}, but JAX has no CUDA plugin: the CPU does the work", cure)
    elif (jaxlib := _version("jaxlib")) not in plugins.values():
        plugin = ", ".join(f"{name} {found}" for name, found in plugins.items())
        yield warn("gpu", f"{named}, but {plugin} does not fit jaxlib {jaxlib}: the CPU does the work", cure)
    elif trouble := _jax_trouble():
        yield warn("gpu", f"{named}, but JAX cannot use it: {trouble}", f"mend the driver, or {cure}")
    else:
        yield ok("gpu", f"{named}: JAX uses it")


def telemetry(root: Path) -> Iterator[Finding]:
    """What Prefect, MLflow and DVC may send: every command switches it off, unless the user's shell switches it on."""
    from flows.server import QUIET

    loud = [name for name in QUIET if name in os.environ and not _is_quiet(name, os.environ[name])]
    for name in loud:
        found = f"{name}={os.environ[name]} in your shell lets usage reports be sent"
        yield warn("telemetry", found, f"`unset {name}`; the commands here then set it to {QUIET[name]}")
    if not loud:
        yield ok("telemetry", "off: the commands here let Prefect, MLflow and DVC send no usage reports")
    if (root / ".dvc").is_dir():
        from dvc.config import Config, to_bool

        core = Config(dvc_dir=str(root / ".dvc"), validate=False).get("core", {})
        switches = {"analytics": "sends usage reports", "check_update": "asks for newer releases"}
        if os.environ.get("DVC_NO_ANALYTICS"):
            del switches["analytics"]
        for name, does in switches.items():
            if to_bool(str(core.get(name, "true"))):
                yield warn("telemetry", f"`dvc` by itself {does}", f"`dvc config core.{name} false`")


def environment(_root: Path) -> Iterator[Finding]:
    """The variables that change where things go."""
    found = [
        ok("environment", f"{name}={masked(os.environ[name])}: {what}")
        for name, what in _MOVES.items()
        if os.environ.get(name)
    ]
    yield from found or [ok("environment", "no variable moves records or caches elsewhere")]


def masked(url: str) -> str:
    """A url without the name and password that it may hold."""
    return re.sub(r"//[^/@]*@", "//…@", url)


def _enough(subject: str, free: int, text: str, cure: str) -> Finding:
    if free < TOO_LITTLE:
        return fail(subject, text, cure)
    return warn(subject, text, cure) if free < LITTLE else ok(subject, text)


def _is_quiet(name: str, value: str) -> bool:
    if name in ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"):
        return value.lower() in _YES
    if name == "PREFECT_SERVER_ANALYTICS_ENABLED":
        return value.lower() in _NO
    return name != "DVC_NO_ANALYTICS" or value != ""  # which DVC takes for yes whatever it says


def _cards() -> list[str]:
    """The names of the NVIDIA GPUs, by their driver's tool or, in a container without it, by the driver itself."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return [line.strip().replace(",", ", driver", 1) for line in told.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError):
        files = sorted(_GPUS.glob("*/information"))
        return [re.sub(r"(?s).*Model:\s*([^\n]*).*", r"\1", file.read_text()) for file in files]


def _jax_trouble() -> str | None:
    """Why JAX does not take the GPU; in a process of its own, which a broken driver may hang or end."""
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return "it did not answer for a minute"
    if asked.stdout.strip() == "gpu":
        return None
    return (asked.stderr.strip().splitlines() or [f"it takes the {asked.stdout.strip() or 'nothing'}"])[-1][:200]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _bounds(specifiers: "SpecifierSet") -> str:
    return ",".join(sorted(map(str, specifiers), reverse=True))  # the lower bound first


def _pip(*arguments: str) -> str:
    python, here = Path(sys.executable), Path.cwd()
    near = python.relative_to(here) if python.is_relative_to(here) else python
    return shlex.join([str(near), "-m", "pip", "install", *arguments])
