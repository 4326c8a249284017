"""Copies of the project that tests may run, edit, kill and interrupt, and the one Prefect server they share.

A pytest plugin, named in conftest.py.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pytest

from flows.server import begin, quiet_environment

ROOT = Path(__file__).parents[1]
STAGES = ("collect", "fit", "validate", "optimize", "tune")
N_SAMPLES, N_CHECK, N_OPTIMIZE, N_TUNE, N_WORKERS = 16, 4, 6, 2, 2
N_CALLS = N_SAMPLES + N_CHECK + N_OPTIMIZE + N_TUNE
HANG_SECONDS = 300  # no claim about speed: what takes longer hangs

# Few shapes and one kernel, as each is traced anew in every process. Threads, as a worker process takes seconds to
# start: a test that needs processes edits that line.
PARAMS = f"""\
problem:
  function: box:evaluate
  source: box.py
  space:
    x: {{type: float, low: -1, high: 2}}
    y: {{type: float, low: 0, high: 3}}
collect:
  n_samples: {N_SAMPLES}
  seed: 10
fit:
  seed: 20
  surrogate: {{kind: gaussian_process, kernel: matern52, n_starts: 2}}
validate:
  folds: 3
  seed: 30
  gradient_evaluations: {N_CHECK}
gates:
  on_fail: warn
  min_r2: 0.5
  min_coverage_95: null
optimize:
  rounds: 2
  evaluations_per_round: 3
  n_starts: 4
  seed: 40
tune:
  n_trials: 2
  batch: 1
  seed: 50
  evaluations: {N_TUNE}
  space: {{prior: [dimension_scaled, flat]}}
execution:
  executor: threads
  n_workers: {N_WORKERS}
  cache_mb: 100
"""

BOX = '''\
"""An analytic black box that first of all leaves a line for its call, in one write."""

import json
import math
import os
import time


def evaluate(x, y):
    calls = os.open(os.environ["BOX_CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(calls, json.dumps({"x": x, "y": y, "pid": os.getpid()}).encode() + b"\\n")
    os.close(calls)
    time.sleep(float(os.environ.get("BOX_SECONDS", "0")))
    return (x - 0.7) ** 2 + 0.5 * (y - 1.1) ** 2 + 0.3 * math.sin(3 * x) * math.cos(2 * y)
'''


@dataclass(frozen=True)
class Call:
    """One call of the black box: the digest of its point, as journals name it, and the process that made it."""

    point: str
    pid: int


@dataclass
class Workspace:
    """A copy of the project in a folder of its own, with a tiny problem; it is a git and a DVC repository."""

    root: Path
    environment: dict[str, str]
    calls_file: Path = field(init=False)

    def __post_init__(self) -> None:
        self.calls_file = self.root.with_name(f"{self.root.name}.calls")
        self.environment = {**self.environment, "BOX_CALLS": str(self.calls_file)}

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Starts `python -m ARGUMENTS` in the workspace, in a session of its own, to be interrupted as a whole."""
        return subprocess.Popen(
            [self.root / ".venv" / "bin" / "python", "-m", *arguments],
            cwd=self.root,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,  # who asks a question gets no answer
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def command(self, *arguments: str, status: int = 0, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Runs `python -m ARGUMENTS` to its end and checks its exit status."""
        return finish(self.start(*arguments, **environment), status)

    def run(self, *options: str, **environment: str) -> dict[str, Any]:
        """`surrogate run --json`: what it printed, which is nothing else."""
        done = self.command("flows", "run", "--json", *options, **environment)
        assert done.stderr == ""
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def refused(self, *options: str, status: int, **environment: str) -> str:
        """`surrogate run --json` that ends with an exit status and, whatever the cause, one line: the line."""
        done = self.command("flows", "run", "--json", *options, status=status, **environment)
        return only_line(done)

    def repro(self, *options: str) -> dict[str, str]:
        """`dvc repro`: the stages that were out of date, and whether each "ran" or was "restored" by its run cache."""
        return stages_run(self.command("dvc", "repro", *options).stdout)

    def git(self, *arguments: str) -> str:
        """What a git command prints."""
        return subprocess.run(
            ["git", *arguments], cwd=self.root, env=self.environment, check=True, capture_output=True, text=True
        ).stdout

    def edit(self, path: str, old: str, new: str) -> None:
        """Replaces the one occurrence of a text in a file."""
        text = (self.root / path).read_text()
        assert text.count(old) == 1, f"{path}: {text.count(old)} times {old!r}"
        (self.root / path).write_text(text.replace(old, new))

    def append(self, path: str, text: str) -> None:
        """Adds text to a file."""
        with (self.root / path).open("a") as file:
            file.write(text)

    def data(self) -> dict[str, str]:
        """sha256 of every file below data/."""
        return digests(self.root / "data")

    def calls(self) -> list[Call]:
        """The calls of the black box so far, in the order they began."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [Call(_point_digest(call), call["pid"]) for call in map(json.loads, lines)]


def finish(process: "subprocess.Popen[str]", status: int) -> "subprocess.CompletedProcess[str]":
    """Waits for a started command and checks its exit status."""
    try:
        out, err = process.communicate(timeout=HANG_SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert process.returncode == status, f"exit status {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def only_line(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line on standard error, beside nothing on standard output."""
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def stages_run(output: str) -> dict[str, str]:
    """What `dvc repro` said of the stages that were out of date."""
    lines = [line.split("'") for line in output.splitlines() if line.count("'") >= 2]
    ran = {line[1]: "ran" for line in lines if line[0] == "Running stage "}
    return ran | {line[1]: "restored" for line in lines if line[0] == "Stage " and line[2].startswith(" is cached")}


def eventually(holds: Callable[[], bool]) -> bool:
    """Waits for something that has to come."""
    deadline = time.monotonic() + HANG_SECONDS
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def at_work(workspace: Workspace) -> list[str]:
    """The living processes that work in a workspace."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(workspace.root):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _point_digest(params: Mapping[str, Any]) -> str:
    return hashlib.sha256(np.array([params["x"], params["y"]], dtype=float).tobytes()).hexdigest()[:16]


@pytest.fixture(scope="session")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of all commands: one Prefect server for all workers, and one store of compiled code.

    Nothing outside the session's own folder is read as settings or written to.
    """
    session = tmp_path_factory.getbasetemp()
    home = ((session.parent if "PYTEST_XDIST_WORKER" in os.environ else session) / "surroundings").resolve()
    user, people = home / "user", [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    user.mkdir(parents=True, exist_ok=True)
    foreign = ("PREFECT_", "MLFLOW_", "DVC_", "GIT_", "JAX_", "XDG_", "TF_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    quiet_environment()  # of this process too, which reads the tracking stores
    with mock.patch.dict(os.environ, clean, clear=True):
        quiet_environment(home / "prefect")
        pending = begin(home / "prefect", idle=1.0)  # seconds after the last worker has closed it
        environment = {**os.environ, "PREFECT_API_URL": pending.wait().url}
    environment.pop("XLA_FLAGS", None)  # by which conftest.py compiles sooner
    yield {
        **environment,
        **dict.fromkeys(people, "test@example.org"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "HOME": str(user),
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "JAX_COMPILATION_CACHE_DIR": str(home / "jax"),
    }
    pending.close()


@dataclass(frozen=True)
class Workspaces:
    """Makes workspaces, all of the same commit."""

    template: Path
    environment: dict[str, str]

    def __call__(self, root: Path) -> Workspace:
        shutil.copytree(self.template, root, symlinks=True)
        return Workspace(root.resolve(), self.environment)


@pytest.fixture(scope="session")
def workspaces(surroundings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Workspaces:
    """The project as it is in the working tree now, copied once: whoever edits it meanwhile does no harm."""
    template = tmp_path_factory.mktemp("template") / "project"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":  # the lock is of the project's own problem
            (template / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, template / name)
    (template / "params.yaml").write_text(PARAMS)
    (template / "box.py").write_text(BOX)
    (template / ".venv").symlink_to(sys.prefix)
    workspace = Workspace(template, surroundings)
    workspace.git("init", "--quiet", "--initial-branch=main")
    workspace.append(".git/info/exclude", "/.venv\n")  # a link, which the project's `.venv/` does not cover
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message=Start")
    assert workspace.git("status", "--porcelain") == ""
    return Workspaces(template, surroundings)


@pytest.fixture(scope="session")
def background() -> Iterator[ThreadPoolExecutor]:
    """Where commands run while a test does something else."""
    with ThreadPoolExecutor(max_workers=2) as executor:
        yield executor


@dataclass(frozen=True)
class Solved:
    """A workspace and what the command printed that first solved it.

    Args:
        workspace: which a test may edit and run again.
        output: of the command.
        data: a copy of the outputs, which stays as it is.
        lock: the content of dvc.lock.
        refused: another `surrogate run`, tried while the first one worked.
    """

    workspace: Workspace
    output: str
    data: Path
    lock: str
    refused: "subprocess.CompletedProcess[str] | None" = None

    @classmethod
    def now(
        cls, workspace: Workspace, output: str, refused: "subprocess.CompletedProcess[str] | None" = None
    ) -> "Solved":
        """The workspace as it is."""
        data = workspace.root.with_name(f"{workspace.root.name}-data")
        shutil.copytree(workspace.root / "data", data)
        return cls(workspace, output, data, (workspace.root / "dvc.lock").read_text(), refused)


@pytest.fixture(scope="session")
def solved_by_run(
    workspaces: Workspaces,
    background: ThreadPoolExecutor,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> "Future[Solved]":
    """What `surrogate run` gives when nothing disturbs it but a second run that is tried meanwhile; under way."""
    workspace = workspaces(tmp_path_factory.mktemp("solved") / "run")

    def solve() -> Solved:
        process = workspace.start("flows", "run", "--json")
        assert eventually(lambda: bool(workspace.calls()) or process.poll() is not None)
        refused = finish(workspace.start("flows", "run", "--json"), 1)
        done = finish(process, 0)
        assert done.stderr == ""
        return Solved.now(workspace, done.stdout, refused)

    running = background.submit(solve)
    if any("solved_by_repro" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("solved_by_repro")  # now: a later test that needs it finds it done
    return running


@pytest.fixture(scope="session")
def solved_by_repro(
    workspaces: Workspaces, background: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory
) -> "Future[Solved]":
    """What `dvc repro` gives; under way."""
    workspace = workspaces(tmp_path_factory.mktemp("solved") / "repro")

    def solve() -> Solved:
        return Solved.now(workspace, workspace.command("dvc", "repro").stdout)

    return background.submit(solve)
