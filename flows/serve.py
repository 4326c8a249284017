"""`surrogate serve`: the schedule of a project, kept by a Prefect server and obeyed by this process until Ctrl-C."""

import datetime as dt
import hashlib
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import tzlocal
from filelock import FileLock, Timeout
from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.schedules import Cron, Interval, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.command import ServerGone, server_needed
from flows.deployments import scheduled
from flows.liveness import project_tag
from flows.runs import Runs, Tell
from flows.server import ServerUnreachable, prefect_server
from tasks.errors import BadInput, StageFailed
from tasks.workspace import home_of

_MIN_INTERVAL = 1.0
_AGAIN_SECONDS = 5.0
_NOT_IN_NAMES = re.compile("[/%&<>]")


def schedule(cron: str | None, interval: float | None, timezone: str | None) -> Schedule:
    """The schedule that the options of the command line name.

    Raises:
        BadInput: they name none, or more than one.
    """
    if (cron is None) == (interval is None):
        raise BadInput(f"serve: expected either --cron or --interval, got {'none' if cron is None else 'both'}")
    if interval is not None:
        if not _MIN_INTERVAL <= interval < dt.timedelta.max.total_seconds():
            raise BadInput(f"--interval: expected a number of seconds >= {_MIN_INTERVAL:g}, got {interval:g}")
        return Interval(interval)
    try:
        zone = timezone or tzlocal.get_localzone_name()
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        got = repr(timezone) if timezone else f"this machine's, which is none ({error})"
        raise BadInput(f"--timezone: expected a name such as Europe/Berlin, got {got}") from error
    try:
        return Cron(str(cron), timezone=zone)
    except ValueError as error:
        raise BadInput(
            f'--cron: expected five fields such as "0 6 * * *" (minute hour day month weekday), got {cron!r}'
        ) from error


def deployment(
    root: Path, name: str | None, plan: Schedule, params: str | None, overrides: Sequence[str]
) -> RunnerDeployment:
    """The schedule of one project on this machine, as Prefect keeps it.

    Raises:
        BadInput: Prefect takes no such name.
    """
    if name is not None and (not name.strip() or _NOT_IN_NAMES.search(name)):
        raise BadInput(f"--name: expected a name without / % & < >, got {name!r}")
    place = hashlib.sha256(f"{platform.node()}:{root}".encode()).hexdigest()[:6]
    made = scheduled.to_deployment(
        name or f"{_NOT_IN_NAMES.sub('-', root.name)}-{place}",
        schedule=plan,
        paused=False,
        parameters={"root": str(root), "params": params, "overrides": list(overrides)},
        tags=[project_tag(root)],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast(RunnerDeployment, made)  # no coroutine, outside of one


@contextmanager
def only_server(root: Path) -> Iterator[None]:
    """One `surrogate serve` at a time works on a project.

    Raises:
        StageFailed: there is one.
    """
    lock = FileLock(root / ".surrogate" / "serve.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StageFailed(f"{root}: another `surrogate serve` works here; end it first") from error
    try:
        yield
    finally:
        lock.release()


def serve(root: Path, plan: RunnerDeployment, tell: Tell, ready: Callable[[str], None]) -> None:
    """Starts runs when they are due, until Ctrl-C; a Prefect server that ends is replaced, or waited for.

    Args:
        root: the project.
        plan: its schedule.
        tell: told what became of each run.
        ready: told the address of the schedule's page, whenever a server has been found.

    Raises:
        UserError: there was no server in the first place, or the schedule was deleted.
    """
    runs, waiting = Runs(root, plan, tell), False
    while True:
        try:
            with (
                server_needed(),
                prefect_server(home_of(root) / "prefect") as server,
                get_client(sync_client=True) as client,
            ):
                try:
                    runs.apply(client)
                    waiting = False
                    ready(f"{server.url.removesuffix('/api')}/deployments/deployment/{runs.deployment_id}")
                    while True:
                        runs.wait(runs.look(client))
                except KeyboardInterrupt:
                    runs.stop(client)
                    return
        except KeyboardInterrupt:
            runs.stop(None)
            return
        except (ServerGone, ServerUnreachable, PrefectHTTPStatusError, ObjectNotFound) as error:
            if isinstance(error, ServerUnreachable) and runs.deployment_id is None:
                raise
            why = re.split(r"[;\n]", str(error))[0]
            if runs.deployment_id is None:
                raise StageFailed(f"serve: {why}") from error
            if not waiting:
                tell("waiting", f"{why}; the schedule goes on when it does its part again")
            waiting = True
            runs.wait(_AGAIN_SECONDS)
