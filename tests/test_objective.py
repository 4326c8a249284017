"""`surrogate tune --objective`: a function of one's own, tuned by the same engine, kept, told and tracked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from blackboxes import wait_until
from click.testing import CliRunner
from mlflow import MlflowClient

from surrogate_core.tuning.study import StudyResult
from surrogate_core.tuning.trials import load_trials
from tasks.errors import BadInput, StageFailed
from tasks.objective import ObjectiveStudy

TRAIN = '''
"""A model's loss, which leaves a line for its call."""

import os
import time


def loss(rate, layers, kind, width=0):
    with open(os.environ.get("CALLS", os.devnull), "a") as calls:
        calls.write(f"{rate} {layers} {kind} {width}\\n")
    time.sleep(float(os.environ.get("SECONDS", "0")))
    if rate > 0.09:
        raise RuntimeError("diverged")
    return (rate - 0.01) ** 2 * 1e4 + abs(layers - 3) + (abs(width - 32) / 32 if kind == "net" else 2)


def of_dict(design):
    return loss(**design)


def in_steps(step, **design):
    return loss(**design) + 0.01 * step


def failing(**design):
    raise OSError("no such data")
'''
SETTINGS = """
tune:
  n_trials: 24
  batch: 4
  seed: 1
  sampler: {kind: tpe, n_startup_trials: 8}
  space:
    rate: {type: loguniform, low: 1.0e-4, high: 0.1}
    layers: [1, 2, 3, 4]
    kind: {type: branches, branches: {net: {width: {type: int, low: 8, high: 64, step: 8}}, tree: {}}}
execution: {executor: serial}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "params.yaml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "train", raising=False)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path


def n_calls(folder: Path) -> int:
    calls = folder / "calls"
    return calls.read_text().count("\n") if calls.exists() else 0


def study(folder: Path, *overrides: str, target: str = "train:loss") -> ObjectiveStudy:
    return ObjectiveStudy.of(folder, target, folder / "params.yaml", overrides)


def run(made: ObjectiveStudy, folder: Path, warnings: list[str] | None = None) -> StudyResult:
    return made.run(lambda trial, how: None, (warnings if warnings is not None else []).append, folder)


@pytest.mark.parametrize("target", ["train:loss", "train:of_dict"])
def test_a_function_is_tuned_and_all_of_it_is_kept(folder: Path, target: str) -> None:
    made = study(folder, target=target)
    result = run(made, folder)
    told, files = made.write(result)
    assert n_calls(folder) == len(result.trials) == 24
    assert {file.name for file in files} == {
        "study.json",
        "history.png",
        "importance.png",
        "slices.png",
        "parallel.png",
    }
    assert all(file.parent == folder / "runs" / "tune" / made.folder.name for file in files)
    assert orjson.loads(files[0].read_bytes()) == told
    assert told["best"]["value"] == min(row["value"] for row in told["trials"] if row["value"] is not None)
    failed = [row for row in told["trials"] if row["status"] == "failed"]
    assert {row["reason"] for row in failed} <= {"RuntimeError: diverged"}
    assert told["n_failed"] == len(failed)
    assert [trial.params for trial in load_trials(made.journal).values()] == [trial.params for trial in result.trials]
    nets = [row["params"] for row in told["trials"] if row["params"]["kind"] == "net"]
    assert all("kind=net/width" in params for params in nets)


def test_the_same_command_goes_on_and_another_seed_or_source_begins_anew(folder: Path) -> None:
    run(study(folder), folder)
    run(study(folder), folder)
    assert n_calls(folder) == 24
    more = run(study(folder, "tune.n_trials=30"), folder)
    assert (n_calls(folder), len(more.trials)) == (30, 30)
    run(study(folder, "tune.n_trials=30", "tune.allow_resume=false"), folder)
    assert n_calls(folder) == 60
    (folder / "train.py").write_text(TRAIN + "# another source\n")
    others = {study(folder, *change).folder for change in ((), ("tune.seed=2",), ("tune.batch=3",))}
    assert len(others) == 3
    assert not any(other.exists() for other in others)


def test_a_guard_keeps_studies_from_what_others_have_tried(folder: Path) -> None:
    small = ["tune.guard=tried.db", "tune.space={layers: [1, 2, 3, 4], rate: [0.01], kind: [tree]}", "tune.n_trials=2"]
    run(study(folder, *small, "tune.sampler=random"), folder)
    result = run(study(folder, *small, "tune.sampler=random", "tune.seed=3", "tune.n_trials=4"), folder)
    assert n_calls(folder) == 4
    assert len(result.trials) == 2
    assert result.stopped == "exhausted"
    assert not result.reproducible


def test_steps_and_a_pruner(folder: Path) -> None:
    made = study(folder, "tune.steps=3", "tune.pruner={kind: median, n_startup_trials: 4}", target="train:in_steps")
    told, _ = made.write(run(made, folder))
    assert told["n_pruned"] > 0
    assert n_calls(folder) < 3 * 24


def test_a_trial_run_is_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURROGATE_FAST", "1")
    assert study(folder).spec.n_trials == 4


def test_more_workers_than_are_advised_are_warned_of(folder: Path) -> None:
    warnings: list[str] = []
    run(study(folder, "execution={executor: threads, n_workers: 9}", "tune.n_trials=2"), folder, warnings)
    assert ["9 at a time are more than the 4 to 8 that are advised" in line for line in warnings] == [True]
    run(study(folder, "execution={executor: threads, n_workers: 2}", "tune.n_trials=2"), folder, warnings)
    assert len(warnings) == 1


def test_where_all_trials_fail_the_study_ends_early_and_says_why(folder: Path) -> None:
    made = study(folder, "tune.n_trials=100", target="train:failing")
    why = r"^tune: all 3 trials failed \(the first few were tried alone: tune.smoke\), the first with: OSError: no such"
    with pytest.raises(StageFailed, match=why):
        made.write(run(made, folder))
    assert orjson.loads((made.folder / "study.json").read_bytes())["best"] is None
    assert not made.journal.exists()  # what is mended anywhere is tried again


def test_where_a_database_keeps_a_study_that_has_failed_the_cure_is_told(folder: Path) -> None:
    made = study(folder, f"tune.storage=sqlite:///{folder / 'study.db'}", target="train:failing")
    why = r"OSError: no such.*; once that is mended, another tune\.storage\.name begins a new study$"
    with pytest.raises(StageFailed, match=why):
        made.write(run(made, folder))


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_an_asynchronous_study_may_be_asked_for_fewer_trials_than_it_has(folder: Path, sampler: str) -> None:
    wanted = ["tune.asynchronous=true", f"tune.sampler={sampler}"]
    first = run(study(folder, *wanted), folder)
    fewer = run(study(folder, *wanted, "tune.n_trials=4"), folder)
    assert n_calls(folder) == 24
    assert [trial.params for trial in fewer.trials] == [trial.params for trial in first.trials[:4]]


def test_where_others_have_tried_all_designs_it_says_so(folder: Path) -> None:
    small = ["tune.guard=tried.db", "tune.space={layers: [1, 2], rate: [0.01], kind: [tree]}", "tune.n_trials=2"]
    run(study(folder, *small), folder)
    for seed in (3, 3):
        made = study(folder, *small, f"tune.seed={seed}")
        with pytest.raises(StageFailed, match=r"^tune\.guard: every design of tune\.space has been tried by another"):
            made.write(run(made, folder))
    again = run(study(folder, *small, "tune.allow_resume=false"), folder)  # its own may be tried anew
    assert (n_calls(folder), len(again.trials)) == (4, 2)


def test_a_database_keeps_the_studies_of_each_function_apart(folder: Path) -> None:
    kept = f"tune.storage=sqlite:///{folder / 'study.db'}"
    first = run(study(folder, kept), folder)
    assert len(run(study(folder, kept), folder).trials) == n_calls(folder) == 24  # which it joins
    other = run(study(folder, kept, target="train:of_dict"), folder)
    assert n_calls(folder) == 48
    assert len(other.trials) == len(first.trials) == 24


@pytest.mark.parametrize(
    ("overrides", "target", "message"),
    [
        ((), "train", "--objective: expected package.module:name, got 'train'"),
        ((), "train:lost", "--objective: expected an importable function, got 'train:lost'"),
        ((), "nowhere:loss", "--objective: expected an importable function, got 'nowhere:loss'"),
        (("tune.space=null",), "train:loss", "tune.space: expected names and what they may be, got nothing"),
        (("tune.space.rate.low=1",), "train:loss", "tune.space.rate.low: expected at most high = 0.1, got 1"),
        (("tune.space.rate.type=real",), "train:loss", "tune.space.rate.type: expected one of fixed, grid, float"),
        (("tune.trials=3",), "train:loss", "tune.trials: unknown key; did you mean n_trials?"),
        (("tune.pruner=median",), "train:loss", "tune.pruner: expected none, as trials have one step, got median"),
        (("tune.timeout=3",), "train:loss", "tune.timeout: needs executor processes or dask, which can stop a call"),
        (("tune.steps=2", "tune.space.step=[1, 2]"), "train:loss", "tune.space.step: expected another name"),
        (("execution.executor=many",), "train:loss", "execution.executor: expected 'serial'"),
        (("tune.storage=trials.db",), "train:loss", "tune.storage: expected the URL of a database such as sqlite"),
        (("tune.storage={url: 'sqlite:///s.db', name: 5}",), "train:loss", "tune.storage.name: expected a name, got 5"),
        (
            ("tune.storage=sqlite:///s.db", "tune.allow_resume=false"),
            "train:loss",
            "tune.allow_resume: expected true, as a database keeps the study, got false; another tune.storage.name",
        ),
        (("tune.strategy=grid",), "train:loss", "tune.space.rate: expected a grid, an int or a float with a step"),
        (("tune.sampler={kind: tpe, gamma: 3}",), "train:loss", "tune.sampler.gamma: expected Callable"),
        (("tune.space.deep=[1]",), "train:loss", "--objective: expected a function of "),
        (("tune.steps=3",), "train:loss", "--objective: expected a function of "),
    ],
)
def test_bad_input_is_one_line_that_names_the_field(
    folder: Path, overrides: Sequence[str], target: str, message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        study(folder, *overrides, target=target)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not (folder / "runs").exists()


def test_a_guard_that_does_not_answer_is_bad_input(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"^tune\.guard: expected a Redis server that answers, got 'redis://127"):
        run(study(folder, "tune.guard=redis://127.0.0.1:1/0"), folder)


def test_a_guard_that_is_no_file_is_bad_input(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"^tune\.guard: expected the path of a SQLite file, got .* \(Is a directory\)"):
        run(study(folder, "tune.guard=."), folder)


def test_specs_are_not_promoted_by_a_function_of_ones_own(folder: Path) -> None:
    from flows.cli import cli

    told = CliRunner().invoke(cli, ["tune", "--objective", "train:loss", "--promote"])
    assert told.exit_code == 2
    assert "--promote: expected surrogate specs to be tuned, got --objective" in told.output


# The command


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(folder: Path) -> Start:
    def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows", "tune", "--objective", "train:loss", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return begin


@pytest.mark.slow
def test_the_command_tells_people_programs_and_mlflow_the_same(folder: Path, start: Start) -> None:
    said, errors = start().communicate(timeout=240)
    assert errors == ""
    assert "space     continuous in rate, 4 parameters; 1 at a time by serial" in said
    as_json, errors = start("--json").communicate(timeout=240)
    assert errors == ""
    told: dict[str, Any] = json.loads(as_json)
    assert n_calls(folder) == 24  # the second took up the first
    assert f"best       {told['best']['value']:.6g}, trial {told['best']['number'] + 1}" in said
    client = MlflowClient(f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    run = client.get_run(told["mlflow_run"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["best"] == told["best"]["value"]
    assert run.data.params["objective"] == "train:loss"
    nested = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert len(nested) == 24
    best = [one for one in nested if one.data.metrics.get("value") == told["best"]["value"]]
    assert [one.data.params["layers"] for one in best] == [str(told["best"]["params"]["layers"])]
    values = [metric.step for metric in client.get_metric_history(told["mlflow_run"], "trial.value")]
    assert len(values) == 24 - told["n_failed"]
    assert {file.path for file in client.list_artifacts(told["mlflow_run"], "pictures")} == {
        f"pictures/{name}.png" for name in ("history", "importance", "slices", "parallel")
    }


CTRL_C_AMID_AN_IMPORT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["AT"]:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["jaxlib._jax", "numpy.random", "tasks.tune"])
def test_ctrl_c_amid_the_start_is_one_line(folder: Path, start: Start, module: str) -> None:
    (folder / "sitecustomize.py").write_text(CTRL_C_AMID_AN_IMPORT)
    stopped = start(PYTHONPATH=f"{folder}:{Path(__file__).parents[1]}", AT=module)
    said = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert said == ("", "surrogate: interrupted: what was evaluated is kept, and the same command goes on from there\n")


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_command_that_is_stopped_loses_nothing_and_goes_on(
    folder: Path, start: Start, signum: int, status: int
) -> None:
    stopped = start("-S", "execution.executor=threads", "-S", "execution.n_workers=2", SECONDS="0.05")
    wait_until(lambda: n_calls(folder) >= 9)
    os.killpg(stopped.pid, signum)
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == status
    assert errors.strip() == (
        ""
        if status < 0
        else "surrogate: interrupted: what was evaluated is kept, and the same command goes on from there"
    )
    as_json, _ = start("--json").communicate(timeout=240)
    told: Mapping[str, Any] = json.loads(as_json)
    assert told["n_trials"] == 24
    calls = (folder / "calls").read_text().splitlines()
    assert len(set(calls)) == 24
    assert len(calls) <= 24 + 2


@pytest.mark.slow
def test_two_commands_do_not_write_one_journal(folder: Path, start: Start) -> None:
    first = start(SECONDS="0.2")
    wait_until(lambda: n_calls(folder) >= 1)
    _, errors = start().communicate(timeout=120)
    assert "another process works on this study; wait for it, or let them share it by tune.storage" in errors
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
