"""A study that is killed again and again: nothing that ended is lost, nothing tried twice but what was under way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from surrogate_core.journal import Journal
from surrogate_core.tuning.identity import trial_key
from surrogate_core.tuning.samplers import Sampler
from surrogate_core.tuning.study import StudySpec, search
from surrogate_core.tuning.trials import load_trials

N_TRIALS, N_KILLS, SECONDS = 200, 20, 0.05
SPACE = {
    "x": {"type": "float", "low": 0, "high": 1},
    "rate": {"type": "loguniform", "low": 1e-4, "high": 1},
    "kind": {"type": "branches", "branches": {"net": {"width": [8, 16, 32]}, "tree": {}}},
}
WORKER = """
import os, sys, time
from surrogate_core.execution import ExecutorSpec
from surrogate_core.journal import Journal
from surrogate_core.tuning.identity import trial_key
from surrogate_core.tuning.study import search
from test_tuning_crash import SECONDS, SPACE, spec_of, value

journal, calls, sampler, executor, asynchronous = sys.argv[1:]
def objective(params):
    file = os.open(calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, trial_key(params).encode() + b"\\n")
    os.close(file)
    time.sleep(SECONDS)
    return value(params)
print("begins", flush=True)
with Journal(journal) as kept:
    search(objective, SPACE, spec_of(sampler, asynchronous == "True"), journal=kept, executor=ExecutorSpec(executor, 2))
"""


def value(params: dict[str, float]) -> float:
    return (params["x"] - 0.3) ** 2 + params["rate"] + params.get("width", 0) / 100


def spec_of(sampler: str, asynchronous: bool) -> StudySpec:
    return StudySpec(N_TRIALS, sampler=Sampler(sampler), batch=4, asynchronous=asynchronous, seed=5)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "executor", "asynchronous"),
    [("random", "processes", False), ("tpe", "threads", True)],
)
def test_a_study_killed_at_random_moments_is_whole_in_the_end(
    sampler: str, executor: str, asynchronous: bool, tmp_path: Path
) -> None:
    journal, calls, moments = tmp_path / "trials.jsonl", tmp_path / "calls", random.Random(sampler + executor)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "JAX_PLATFORMS": "cpu"}
    arguments = [str(journal), str(calls), sampler, executor, str(asynchronous)]
    longest = 0.2 if executor != "processes" else 0.8  # which have to start
    for n_killed in range(N_KILLS + 1):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        if n_killed < N_KILLS:
            time.sleep(moments.uniform(0, longest))
            assert process.poll() is None  # it had more to do
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.1 * (executor == "processes"))  # until the workers have died of it
    assert process.wait(120) == 0

    tried = Counter(calls.read_text().splitlines())
    kept = load_trials(journal)
    assert not kept.damaged
    ended = {trial_key(trial.params): trial for trial in kept.values()}
    assert len(kept) == len(ended) == N_TRIALS
    assert {trial.status for trial in ended.values()} <= {"ok", "failed"}
    gone = [trial for trial in ended.values() if trial.status == "failed"]  # whose process was killed twice
    assert {trial.reason for trial in gone} <= {"its process was killed 2 times"}
    assert tried.keys() <= ended.keys()
    assert max(tried.values()) <= 2
    assert sum(tried.values()) - len(tried) <= 2 * N_KILLS  # by two workers
    assert all(trial.value == value(trial.params) for trial in ended.values() if trial.status == "ok")
    if not asynchronous:
        with Journal(journal) as journal_again:
            whole = search(value, SPACE, spec_of(sampler, False))
            again = search(lambda params: 1 / 0, SPACE, spec_of(sampler, False), journal=journal_again)
        assert len(again.trials) == N_TRIALS
        if not gone:  # a seed fixes the study, however often it was killed
            assert [trial_key(t.params) for t in again.trials] == [trial_key(t.params) for t in whole.trials]
            assert again.best.value == whole.best.value
