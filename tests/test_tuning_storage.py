"""Studies in a database: several processes work on one, none tries what another has tried or is trying."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from blackboxes import wait_until
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from surrogate_core.execution import ExecutorSpec
from surrogate_core.journal import Journal
from surrogate_core.tuning.samplers import Pruner, Sampler
from surrogate_core.tuning.storage import Storage, StorageUnreachable, queue_again
from surrogate_core.tuning.study import StudyResult, StudySpec, search

SPACE: dict[str, Any] = {
    "x": {"type": "float", "low": 0, "high": 1},
    "kind": {"type": "branches", "branches": {"net": {"width": [8, 16, 32]}, "tree": {}}},
}
Url = Callable[[], str]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def storage(url: str, tmp_path: Path) -> Storage:
    return Storage(url, name=tmp_path.name, heartbeat=1, grace=2)


def valley(params: Mapping[str, Any]) -> float:
    return (params["x"] - 0.3) ** 2 + params.get("width", 0) / 100


def designs(study: StudyResult) -> list[str]:
    return [repr(sorted(trial.params.items())) for trial in study.trials]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_study_is_kept_and_goes_on(storage: Storage, asynchronous: bool) -> None:
    spec = StudySpec(8, sampler=Sampler("tpe", {"n_startup_trials": 4}), batch=3, asynchronous=asynchronous)
    calls: list[Any] = []

    def objective(params: Mapping[str, Any]) -> float:
        calls.append(params)
        if params["x"] > 0.9:
            raise ValueError("too far")
        return valley(params)

    first = search(objective, SPACE, spec, storage=storage, executor=ExecutorSpec("threads", 2))
    assert len(first.trials) == len(calls) == 8
    assert not first.reproducible
    again = search(objective, SPACE, StudySpec(12, batch=3), storage=storage)
    assert len(again.trials) == len(calls) == len(set(designs(again))) == 12
    before = {repr(trial.params): (repr(trial.value), trial.status, trial.reason) for trial in first.trials}
    assert before == {repr(t.params): (repr(t.value), t.status, t.reason) for t in again.trials[:8]}
    assert again.best.value == min(trial.value for trial in again.trials if trial.status == "ok")


def test_a_small_space_is_tried_whole_and_once(storage: Storage) -> None:
    calls: list[int] = []
    spec = StudySpec(100, batch=4, sampler=Sampler("random"))
    study = search(lambda p: calls.append(p["n"]) or p["n"], {"n": list(range(20))}, spec, storage=storage)
    assert sorted(calls) == list(range(20))
    assert study.n_duplicates > 0
    assert search(lambda p: 1 / 0, {"n": list(range(20))}, spec, storage=storage).best.value == 0


def test_pruned_trials_are_kept(storage: Storage) -> None:
    spec = StudySpec(24, pruner=Pruner("median", {"n_startup_trials": 3}), n_steps=4, batch=4)
    study = search(lambda p, step: valley(p) + 0.01 * step, SPACE, spec, storage=storage)
    again = search(lambda p, step: 1 / 0, SPACE, spec, storage=storage)
    by_design = [{repr(t.params): (t.status, t.value, t.steps) for t in one.trials} for one in (study, again)]
    assert by_design[0] == by_design[1]
    assert {"ok", "pruned"} == {trial.status for trial in study.trials}


WORKER = """
import sys, time, os
from surrogate_core.tuning.samplers import Sampler
from surrogate_core.tuning.storage import Storage
from surrogate_core.tuning.study import StudySpec, search

url, name, calls, seconds, n, asynchronous = sys.argv[1:]
def objective(params):
    with open(calls, "a") as file:
        file.write(f"{os.getpid()} {params['n']}\\n")
    time.sleep(float(seconds))
    return params["n"]
spec = StudySpec(int(n), sampler=Sampler("random"), asynchronous=asynchronous == "True", batch=8, seed=0)
result = search(objective, {"n": list(range(int(n)))}, spec, storage=Storage(url, name, heartbeat=1, grace=2))
print(len(result.trials), result.best.value)
"""


def joined(
    storage: Storage, calls: Path, seconds: float, n: int, *, asynchronous: bool = True
) -> subprocess.Popen[str]:
    arguments = [storage.url, storage.name, str(calls), str(seconds), str(n), str(asynchronous)]
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, text=True)


def tried_in_the_end(storage: Storage, calls: Path, n: int, *, asynchronous: bool = True) -> Counter[int]:
    """How often each of n designs was tried once one more process has ended the study, of which it knows all."""
    last = joined(storage, calls, 0, n, asynchronous=asynchronous)
    n_known, best = last.communicate(timeout=60)[0].split()
    assert (n_known, float(best)) == (str(n), 0.0)
    tried = Counter(int(line.split()[1]) for line in calls.read_text().splitlines())
    assert sorted(tried) == list(range(n))
    return tried


@pytest.mark.slow
def test_processes_that_join_a_study_try_each_design_once(storage: Storage, tmp_path: Path) -> None:
    patient = replace(storage, grace=60)  # a worker of a busy machine may be silent for seconds
    workers = [joined(patient, tmp_path / "calls", 0.02, 30) for _ in range(3)]
    assert [worker.wait(timeout=120) for worker in workers] == [0] * 3
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert sorted(int(n) for _, n in calls) == list(range(30))
    assert len({pid for pid, _ in calls}) > 1  # they shared it
    assert set(tried_in_the_end(patient, tmp_path / "calls", 30).values()) == {1}


@pytest.mark.slow
def test_the_trial_of_a_killed_process_is_tried_once_more_by_another(storage: Storage, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    killed = joined(storage, calls, 60, 6)
    wait_until(lambda: calls.exists() and calls.read_text().count("\n") == 1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    time.sleep(3.5)  # its trial counts as dead
    assert sorted(tried_in_the_end(storage, calls, 6).values()) == [1, 1, 1, 1, 1, 2]  # the one in flight again


@pytest.mark.slow
def test_a_process_that_was_silent_for_too_long_goes_on(storage: Storage, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    silent = joined(storage, calls, 0.5, 6)
    wait_until(lambda: calls.exists() and calls.read_text().count("\n") == 2)
    os.kill(silent.pid, signal.SIGSTOP)
    time.sleep(3.5)
    other = joined(storage, calls, 0.5, 6)
    wait_until(lambda: calls.read_text().count("\n") >= 3)
    os.kill(silent.pid, signal.SIGCONT)
    assert [process.wait(timeout=60) for process in (silent, other)] == [0, 0]
    assert sorted(tried_in_the_end(storage, calls, 6).values()) == [1, 1, 1, 1, 1, 2]  # the one in flight again


@pytest.mark.slow
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_only_what_was_under_way_counts_as_killed_and_what_had_ended_is_kept(storage: Storage, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    for n_before in (2, 5):  # of a batch of 8, one at a time
        killed = joined(storage, calls, 0.3, 8, asynchronous=False)
        wait_until(lambda n=n_before: calls.exists() and calls.read_text().count("\n") > n)
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        time.sleep(3.5)
    assert tried_in_the_end(storage, calls, 8, asynchronous=False).total() <= 8 + 2  # those in flight again


def give_up(storage: Storage, *, and_retry: bool) -> None:
    """What another process does with trials that seem dead to it."""
    study = optuna.load_study(study_name=storage.name, storage=RDBStorage(storage.url))
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        queue_again(study, trial)
    if and_retry:
        study.ask()


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_trial_given_up_while_it_was_under_way_counts_once(
    storage: Storage, asynchronous: bool, n_steps: int
) -> None:
    calls: list[int] = []

    def objective(params: Mapping[str, Any], step: int = 0) -> float:
        calls.append(params["n"])
        if len(calls) == 8:
            give_up(storage, and_retry=False)
        if params["n"] == 1:
            raise ValueError("no")
        return float(params["n"])

    pruner = Pruner("median", {"n_startup_trials": 2}) if n_steps > 1 and not asynchronous else Pruner("none")
    spec = StudySpec(12, sampler=Sampler("random"), batch=4, asynchronous=asynchronous, n_steps=n_steps, pruner=pruner)
    study = search(objective, {"n": list(range(12))}, spec, storage=storage)
    assert sorted(trial.params["n"] for trial in study.trials) == list(range(12))
    assert max(Counter(calls).values()) == n_steps
    again = search(objective, {"n": list(range(12))}, spec, storage=storage)
    assert {t.number: (t.params["n"], t.status, t.reason) for t in again.trials} == {
        t.number: (t.params["n"], t.status, t.reason) for t in study.trials
    }
    assert [trial.reason for trial in again.trials if trial.params["n"] == 1] == ["no"]


def test_what_another_process_makes_again_is_left_to_it(storage: Storage) -> None:
    calls: list[int] = []

    def objective(params: Mapping[str, Any]) -> float:
        calls.append(params["n"])
        if len(calls) == 3:
            give_up(storage, and_retry=True)
        return float(params["n"])

    spec = StudySpec(8, sampler=Sampler("random"), batch=1, patience=20)
    study = search(objective, {"n": list(range(8))}, spec, storage=storage)
    assert sorted(calls) == list(range(8))
    assert sorted(trial.params["n"] for trial in study.trials) == sorted(set(calls) - {calls[2]})


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_trial_interrupted_is_tried_again_at_once_and_is_not_taken_for_killed(
    storage: Storage, asynchronous: bool
) -> None:
    calls: list[int] = []

    def objective(params: Mapping[str, Any]) -> float:
        calls.append(params["n"])
        if len(calls) <= 3:
            raise KeyboardInterrupt
        return float(params["n"])

    spec = StudySpec(5, sampler=Sampler("random"), batch=2, asynchronous=asynchronous)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            search(objective, {"n": list(range(5))}, spec, storage=replace(storage, grace=60))
    study = search(objective, {"n": list(range(5))}, spec, storage=replace(storage, grace=60))
    assert sorted(trial.params["n"] for trial in study.trials) == list(range(5))
    assert {trial.status for trial in study.trials} == {"ok"}
    assert len(calls) == 3 + 5


def test_an_interruption_loses_nothing_of_a_batch_that_had_ended(storage: Storage) -> None:
    calls: list[int] = []

    def objective(params: Mapping[str, Any]) -> float:
        calls.append(params["n"])
        if len(calls) == 7:
            raise KeyboardInterrupt
        time.sleep(0.1)  # else several are handed over, and answered, together
        return float(params["n"])

    spec = StudySpec(8, sampler=Sampler("random"), batch=8)
    with pytest.raises(KeyboardInterrupt):
        search(objective, {"n": list(range(8))}, spec, storage=storage)
    search(objective, {"n": list(range(8))}, spec, storage=storage)
    assert Counter(calls) == Counter([*range(8), calls[6]])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "storage: expected the URL of a database such as sqlite:///study.db, got 'nonsense'"),
        ("redis://localhost/0", "storage: expected the URL of a database such as sqlite:///study.db, got 'redis:"),
        ("postgres://me:secret@host/x", r"storage: expected the URL of .*, got 'postgres://me:\*\*\*@host/x'$"),
    ],
)
def test_what_is_no_database_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Storage(url)


def test_a_database_that_does_not_answer_is_one_line_without_its_password() -> None:
    storage = Storage("postgresql+psycopg://me:secret@127.0.0.1:1/nothing")
    with pytest.raises(StorageUnreachable, match=r"^storage: expected a database that answers, got none at") as caught:
        search(valley, SPACE, StudySpec(2), storage=storage)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in repr(storage)


def test_signs_of_life_are_more_frequent_than_they_are_asked_for() -> None:
    with pytest.raises(ValueError, match=r"^storage\.grace: expected at least two heartbeats of 10 s, got 15$"):
        Storage("sqlite:///study.db", heartbeat=10, grace=15)
    assert Storage("sqlite:///study.db", heartbeat=10, grace=20).grace == 20


def test_a_password_is_shown_nowhere() -> None:
    storage = Storage("postgresql+psycopg://me:secret@127.0.0.1:1/nothing?sslpassword=secret&connect_timeout=1")
    assert storage.told == "postgresql+psycopg://me:***@127.0.0.1:1/nothing?sslpassword=***&connect_timeout=1"


def test_a_database_that_ends_amid_a_study_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "study.db"

    def objective(params: Mapping[str, Any]) -> float:
        path.write_bytes(b"no database any more" * 1000)
        return 0.0

    with pytest.raises(StorageUnreachable, match=r"^storage: expected a database that answers, got none at sqlite"):
        search(objective, SPACE, StudySpec(8, batch=2), storage=Storage(f"sqlite:///{path}"))


def test_another_direction_or_space_or_a_journal_beside_it_is_refused(tmp_path: Path) -> None:
    storage = Storage(f"sqlite:///{tmp_path / 'study.db'}")
    search(valley, SPACE, StudySpec(2), storage=storage)
    with pytest.raises(ValueError, match=r"^direction: expected minimize, as the study surrogate has, got maximize"):
        search(valley, SPACE, StudySpec(2, direction="maximize"), storage=storage)
    with pytest.raises(ValueError, match=r"^space: expected that of the study surrogate in the database, .*tool"):
        search(valley, {"tool": [1, 2]}, StudySpec(2), storage=storage)
    with Journal(tmp_path / "j.jsonl") as journal, pytest.raises(ValueError, match=r"^journal: expected none"):
        search(valley, SPACE, StudySpec(2), storage=storage, journal=journal)
