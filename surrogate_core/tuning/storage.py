"""A study that several processes, on one machine or many, work on together: Optuna keeps its trials in a database.

A trial under way is told to be alive again and again; what is no longer, is tried once more by whoever comes first.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from surrogate_core.tuning.guard import without_password
from surrogate_core.tuning.records import TRIES
from surrogate_core.tuning.trials import Trial

ATTEMPTS = 6  # to make a database's tables
BUSY_SECONDS = 100  # that one waits for others who write a SQLite file
_ABOUT = "about"
_PARAMS, _BEGUN, _STEPS, _REASON, _DUPLICATE = "params", "begun", "steps", "reason", "duplicate"
_EARLIER, _KILLS = "earlier", "kills"  # of a trial that is made again: the numbers it had, and processes killed by it
_KILLED = f"its process was killed {TRIES} times"
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class StorageUnreachable(ValueError):
    """A database does not answer."""


@dataclass(frozen=True)
class Storage:
    """Where a study is kept that others may join.

    Args:
        url: of a database as SQLAlchemy has them, such as sqlite:///study.db or
            postgresql+psycopg://user@host/database; its tables are made if need be.
        name: of the study in it; whoever gives the same one joins it.
        heartbeat: seconds between two signs of life of a trial.
        grace: seconds without one, after which its process counts as killed; at least two heartbeats.

    Raises:
        ValueError: a value is not as it should be.
    """

    url: str = field(repr=False)  # which may hold a password
    name: str = "surrogate"
    heartbeat: int = 10
    grace: int = 60

    def __post_init__(self) -> None:
        try:
            make_url(self.url).get_dialect()
        except (ArgumentError, NoSuchModuleError) as error:
            got = without_password(str(self.url))
            raise ValueError(
                f"storage: expected the URL of a database such as sqlite:///study.db, got {got!r}"
            ) from error
        for name in ("heartbeat", "grace"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"storage.{name}: expected an integer >= 1, got {getattr(self, name)!r}")
        if self.grace < 2 * self.heartbeat:
            raise ValueError(f"storage.grace: expected at least two heartbeats of {self.heartbeat} s, got {self.grace}")
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"storage.name: expected a name, got {self.name!r}")

    @property
    def told(self) -> str:
        """The URL without a password."""
        return without_password(self.url)

    def open(
        self, direction: Literal["minimize", "maximize"], about: Mapping[str, Any]
    ) -> tuple[optuna.Study, RDBStorage]:
        """The study, made if it is not there, and its storage.

        Args:
            direction: of the study.
            about: what else those who work on it must have in common, as JSON values by name.

        Raises:
            StorageUnreachable: the database does not answer.
            ValueError: the study is there, and is another one.
        """
        with reached(self):
            kept = self._connected()
            try:
                study = optuna.create_study(storage=kept, study_name=self.name, direction=direction)
            except DuplicatedStudyError:
                study = optuna.load_study(storage=kept, study_name=self.name)
        if study.direction.name.lower() != direction:
            raise ValueError(
                f"direction: expected {study.direction.name.lower()}, as the study {self.name} has, got {direction}"
            )
        with reached(self):
            known = study.user_attrs.get(_ABOUT)
            if known is None:
                study.set_user_attr(_ABOUT, dict(about))
        for name, value in (known or {}).items():
            if about.get(name) != value:
                raise ValueError(
                    f"{name}: expected that of the study {self.name} in the database, {str(value)[:200]}, "
                    f"got {str(about.get(name))[:200]}; another tune.storage.name begins another study"
                )
        return study, kept

    def _connected(self) -> RDBStorage:
        timeout = {"timeout": BUSY_SECONDS} if make_url(self.url).get_backend_name() == "sqlite" else {}
        for attempt in range(ATTEMPTS):
            try:
                return RDBStorage(
                    self.url,
                    engine_kwargs={"connect_args": timeout, "pool_pre_ping": True},
                    heartbeat_interval=self.heartbeat,
                    grace_period=self.grace,
                    heartbeat_stale_trial_callback=queue_again,
                )
            except (IntegrityError, ProgrammingError, OperationalError) as error:
                # Those who make the tables of one database at once get in each other's way.
                if attempt == ATTEMPTS - 1 or not re.search("exists|unique", str(error), re.IGNORECASE):
                    raise
                time.sleep(0.1 * 2**attempt)
        raise AssertionError


@contextmanager
def reached(storage: Storage | None, *also: type[Exception]) -> Iterator[None]:
    """Raises StorageUnreachable where the database fails, or by other errors that tell of the same."""
    try:
        yield
    except Exception as error:
        if storage is None or not isinstance(error, (SQLAlchemyError, StorageInternalError, ImportError, *also)):
            raise
        cause = error.__cause__ or error
        line = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0][:200]
        raise StorageUnreachable(
            f"storage: expected a database that answers, got none at {storage.told}: {line}"
        ) from error


class Joined:
    """A study in a database: what others have told it, and that one's own trials are alive.

    Args:
        storage: where it is.
        direction, about: as of `Storage.open`.

    Attributes:
        study: Optuna's.

    Raises:
        StorageUnreachable, ValueError: as `Storage.open`.
    """

    def __init__(self, storage: Storage, direction: Literal["minimize", "maximize"], about: Mapping[str, Any]) -> None:
        self._storage = storage
        self.study, self._kept = storage.open(direction, about)
        self._heard: set[int] = set()
        self._alive: dict[int, int] = {}
        self._beaten = time.time()
        self._ends = threading.Event()

    def __enter__(self) -> Joined:
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ends.set()
        self._thread.join()
        with suppress(SQLAlchemyError, StorageInternalError):  # others find after the grace what cannot be told now
            for trial_id in self._alive.values():
                self._give_back(trial_id)
        self._kept.remove_session()
        self._kept.engine.dispose()

    def is_retried(self, trial: optuna.Trial) -> bool:
        """Whether a trial is one that its first process has not ended."""
        return _EARLIER in self._kept.get_trial_system_attrs(trial._trial_id)

    @property
    def waits(self) -> bool:
        """Whether a trial waits for somebody to make it."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def claim(self, trial: optuna.Trial, params: Mapping[str, Any]) -> None:
        """A trial is one's own, and is to be made."""
        self._kept.record_heartbeat(trial._trial_id)
        trial.set_user_attr(_PARAMS, params)
        self._alive[trial.number] = trial._trial_id

    def begin(self, trial: optuna.Trial) -> None:
        """A trial of one's own is under way: if its process is killed, it counts as what may have done that."""
        with suppress(UpdateFinishedTrialError):  # which `end` finds too
            trial.set_user_attr(_BEGUN, True)

    def repeats(self, trial: optuna.Trial) -> None:
        """A trial repeats another, and does not count."""
        self._alive.pop(trial.number, None)
        self._heard.add(trial.number)
        trial.set_user_attr(_DUPLICATE, True)

    def end(self, trial: optuna.Trial, ended: Trial, tell: Callable[[optuna.Trial], None]) -> int | None:
        """Ends a trial of one's own.

        Args:
            trial: that has ended.
            ended: what became of it.
            tell: tells the study of it.

        Returns:
            The number it has: another one where this process was silent for so long that it counted as killed, and
            None where somebody else makes the trial again for that.
        """
        own = trial.number
        while True:
            try:
                if ended.steps:
                    trial.set_user_attr(_STEPS, list(ended.steps))
                if ended.reason:
                    trial.set_user_attr(_REASON, ended.reason)
                tell(trial)
            except (ValueError, UpdateFinishedTrialError):
                if not self._kept.get_trial(trial._trial_id).state.is_finished():
                    raise
                again = self._taken_over(trial)
                if again is None:
                    del self._alive[own]
                    return None
                trial = again
            else:
                del self._alive[own]
                self._heard.add(trial.number)
                return trial.number

    def hear(self) -> list[Trial]:
        """Trials of others that have ended since this was last asked; those whose process is gone are queued again."""
        if time.time() - self._beaten > self._storage.heartbeat:  # after a sleep one's own are alive too
            self._tell_alive()
        fail_stale_trials(self.study)
        ended = self.study.get_trials(deepcopy=False, states=_ENDED)
        fresh = [one for one in ended if one.number not in self._heard]
        self._heard.update(one.number for one in fresh)
        return [_trial(one) for one in fresh if _counts(one)]

    def _taken_over(self, trial: optuna.Trial) -> optuna.Trial | None:
        """What waits to be made in place of a trial that counts as killed, and now is not; None where none does."""
        for waiting in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if trial.number in waiting.system_attrs.get(_EARLIER, ()):
                with suppress(UpdateFinishedTrialError):
                    if self._kept.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                        for step, value in self._kept.get_trial(trial._trial_id).intermediate_values.items():
                            self._kept.set_trial_intermediate_value(waiting._trial_id, step, value)
                        return optuna.Trial(self.study, waiting._trial_id)
        return None

    def _give_back(self, trial_id: int) -> None:
        """Ends a trial that was interrupted, and queues it again."""
        with suppress(UpdateFinishedTrialError):
            self._kept.set_trial_user_attr(trial_id, _BEGUN, False)  # it has killed nothing
            self._kept.set_trial_state_values(trial_id, TrialState.FAIL)
            queue_again(self.study, self._kept.get_trial(trial_id))

    def _beat(self) -> None:
        while not self._ends.wait(self._storage.heartbeat):
            with suppress(SQLAlchemyError, StorageInternalError):  # of which the study's own next call tells
                self._tell_alive()

    def _tell_alive(self) -> None:
        for trial_id in list(self._alive.values()):
            self._kept.record_heartbeat(trial_id)
        self._beaten = time.time()


def _kills(ended: FrozenTrial) -> int:
    """How many processes were killed while they made it."""
    return int(ended.system_attrs.get(_KILLS, 0)) + bool(ended.user_attrs.get(_BEGUN))


def queue_again(study: optuna.Study, ended: FrozenTrial) -> None:
    """Queues what has been failed as its process is gone, unless it was tried as often as it may be."""
    if _kills(ended) < TRIES:
        waiting = create_trial(
            state=TrialState.WAITING,
            params=ended.params,
            distributions=ended.distributions,
            user_attrs={name: told for name, told in ended.user_attrs.items() if name == _PARAMS},
            system_attrs={_EARLIER: [*ended.system_attrs.get(_EARLIER, ()), ended.number], _KILLS: _kills(ended)},
        )
        study.add_trial(waiting)


def _counts(ended: FrozenTrial) -> bool:
    """Whether it is neither a duplicate nor one that is tried again."""
    if _DUPLICATE in ended.user_attrs or _PARAMS not in ended.user_attrs:
        return False
    is_gone = ended.state == TrialState.FAIL and _REASON not in ended.user_attrs
    return not is_gone or _kills(ended) >= TRIES


def _trial(ended: FrozenTrial) -> Trial:
    params, steps = ended.user_attrs[_PARAMS], tuple(ended.user_attrs.get(_STEPS, ()))
    if ended.state == TrialState.FAIL:
        return Trial(ended.number, params, math.nan, "failed", ended.user_attrs.get(_REASON, _KILLED))
    if ended.state == TrialState.PRUNED:
        return Trial(ended.number, params, math.fsum(steps) / len(steps), "pruned", steps=steps)
    assert ended.value is not None
    return Trial(ended.number, params, ended.value, "ok", steps=steps)
