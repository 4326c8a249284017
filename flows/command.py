"""What a command and a scheduled run do alike before the stages: quiet libraries, one run a project, settings read."""

import _thread
import errno
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from tasks.errors import BadInput, StageFailed

if TYPE_CHECKING:
    from tasks.inputs import Inputs
    from tasks.workspace import Workspace

INTERRUPTED = "interrupted: what was evaluated is kept, and the same command goes on from there"


class Busy(StageFailed):
    """Another run is working in the project."""


class ServerGone(StageFailed):
    """Prefect's server has died amid a run; to be told, and then left by `leave`."""


def leave(status: int) -> NoReturn:
    """Ends the process at once: Prefect would try for minutes to tell a server that has gone of all events."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def take_stdout() -> TextIO:
    """Standard output for the caller alone: whatever else this process prints from now on goes to standard error.

    For good, as what a library has buffered is printed when the process ends.
    """
    taken = sys.stdout
    with suppress(OSError):  # within a test it has no descriptor
        taken.flush()
        number = taken.fileno()
        taken = open(os.dup(number), "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
        os.dup2(2, number)
    sys.stdout = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - likewise, where standard error is closed
    return taken


@contextmanager
def server_needed() -> Iterator[None]:
    """Raises ServerGone where Prefect's client finds that nobody answers."""
    import httpx

    try:
        yield
    except (httpx.TransportError, RuntimeError) as error:
        cause = error if isinstance(error, httpx.TransportError) else error.__cause__
        if not isinstance(cause, httpx.TransportError):
            raise
        raise ServerGone(
            f"Prefect's server no longer answers ({cause}); "
            "the stages that ended are written and cached, and the same command goes on from there"
        ) from error


@contextmanager
def room_needed() -> Iterator[None]:
    """Raises StageFailed where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        where = f" at {error.filename}" if error.filename else ""
        raise StageFailed(
            f"the disk is full{where}: make room; what was evaluated is kept, and the same command goes on"
        ) from error


def interruptible() -> None:
    """Ends what a scheduler stops as cleanly as Ctrl-C does."""
    signal.signal(signal.SIGTERM, interrupt)
    sys.unraisablehook = _not_lost


def interrupt(_number: int, _frame: object) -> None:
    """A handler of signals that ends the work as Ctrl-C does."""
    raise KeyboardInterrupt


@contextmanager
def starting() -> Iterator[None]:
    """Ctrl-C amid imports ends the process on the spot: raised within compiled code it gets lost, or crashes it."""

    def end(_number: int, _frame: object) -> None:
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h")  # the cursor, which is hidden while something is under way
        os.write(2, f"surrogate: {INTERRUPTED}\n".encode())
        os._exit(130)

    before = {which: signal.signal(which, end) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


@contextmanager
def project(root: Path, params: str | None) -> Iterator[Path]:
    """A folder, made ready and locked: one run at a time works in it.

    The lock goes with the process that holds it.

    Raises:
        BadInput: there are no settings, and nothing has been written.
        Busy: another process has it.
    """
    from filelock import FileLock, Timeout

    prepare(root, params)
    lock = FileLock(root / ".surrogate" / "project.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise Busy(f"{root}: another run is working here; wait for it, or end it") from error
    try:
        yield root
    finally:
        lock.release()


def prepare(root: Path, params: str | None) -> None:
    """Makes a folder ready for work; nothing is written where there are no settings."""
    from tasks.workspace import check_writable, home_of, link_command

    settings_file(root, params)
    check_writable(root / ".surrogate", home_of(root))
    link_command(home_of(root))
    quiet(root)


def open_workspace(root: Path, params: str | None, overrides: Sequence[str], inputs: "Inputs") -> "Workspace":
    """The workspace of a project's own settings, or of others: `params` and `overrides` as on the command line."""
    from tasks.settings import is_fast, load_settings
    from tasks.workspace import Workspace

    settings = load_settings(settings_file(root, params), overrides)
    return Workspace.of(root, settings, foreign=bool(params or overrides or is_fast()), inputs=inputs)


def check(workspace: "Workspace", stages: Iterable[str]) -> None:
    """Finds out before any work is done what the stages would find out.

    Raises:
        BadInput: the settings name what is not there.
    """
    from tasks.keys import STAGES

    settings = workspace.settings
    if any(STAGES[stage].calls_black_box for stage in stages):
        _ = workspace.black_box
        settings.problem.check(workspace.root, 2 * settings.validate.folds)
    _ = settings.report.figure_maker


def settings_file(root: Path, params: str | None) -> Path:
    """The project's own settings, or others, named as from the working folder.

    Raises:
        BadInput: there are none.
    """
    settings = Path(params) if params else root / "params.yaml"
    if not settings.is_file():
        raise BadInput(f"{settings}: expected a settings file, got none; work in a folder that has one, or name it")
    return settings


def quiet(root: Path) -> None:
    """Sets what keeps the libraries quiet, offline and within the project; before they are imported."""
    from flows.server import quiet_environment
    from tasks.workspace import COMPILED, MAX_COMPILED_BYTES, drop_oldest, home_of

    home = home_of(root)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the compilation cache logs pages about CPU features
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(home / COMPILED / _compiler_identity()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    # Not JAX's own limit of the folder's size: a kill between two of its writes stops all later ones.
    drop_oldest(home / COMPILED, MAX_COMPILED_BYTES)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")  # it is compiled anew
    warnings.filterwarnings("ignore", "(?s)Hint: Inferred schema contains integer column")  # none of ours is missing
    quiet_environment(home / "prefect")


def only_errors() -> None:
    """Prefect and MLflow tell of every step; a person sees the table."""
    for name in ("prefect", "mlflow", "alembic", "httpx", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine", "mlflow.store.db"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a failure is told once, by us


def _not_lost(ignored: "sys.UnraisableHookArgs") -> None:
    """Interrupts again where Python dropped a Ctrl-C, as it does within a finalizer."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(ignored)


def _compiler_identity() -> str:
    """What compiled code fits: this CPU and this release of JAX."""
    import hashlib
    from importlib.metadata import version

    from tasks.machine import machine

    return hashlib.sha256(repr((machine(), version("jaxlib"))).encode()).hexdigest()[:16]
