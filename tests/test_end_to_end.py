"""`surrogate run` and `dvc repro` are one thing, observed from outside: commands, files, git, DVC and MLflow."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workspace_fixture import (
    N_CALLS,
    STAGES,
    Solved,
    Workspace,
    Workspaces,
    at_work,
    digests,
    finish,
    only_line,
    stages_run,
)

pytestmark = pytest.mark.slow


# --- (a) the same commit, solved both ways


@dataclass(frozen=True)
class Twins:
    """Two workspaces of one commit after their first solution."""

    by_run: Solved
    by_repro: Solved
    runs_of_repro: list[Any]

    @property
    def told(self) -> dict[str, Any]:
        """What `surrogate run --json` printed."""
        told: dict[str, Any] = json.loads(self.by_run.output)
        return told


@pytest.fixture(scope="module")
def twins(solved_by_run: "Future[Solved]", solved_by_repro: "Future[Solved]") -> Twins:
    by_repro = solved_by_repro.result()
    return Twins(solved_by_run.result(), by_repro, runs(by_repro.workspace))


def client(workspace: Workspace) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store(workspace))


def store(workspace: Workspace) -> str:
    return f"sqlite:///{workspace.root / 'mlruns' / 'mlflow.db'}"


def runs(workspace: Workspace) -> list[Any]:
    """The workspace's MLflow runs, the newest first, without those of single specs."""
    mlflow = client(workspace)
    experiment = mlflow.get_experiment_by_name("surrogate").experiment_id
    return [run for run in mlflow.search_runs([experiment]) if "mlflow.parentRunId" not in run.data.tags]


def test_run_and_repro_write_the_same_bytes_and_leave_dvc_and_git_clean(twins: Twins) -> None:
    assert stages_run(twins.by_repro.output) == dict.fromkeys(STAGES, "ran")
    assert digests(twins.by_run.data) == digests(twins.by_repro.data)
    assert twins.by_run.lock == twins.by_repro.lock
    for workspace in (twins.by_run.workspace, twins.by_repro.workspace):
        calls = workspace.calls()
        assert len(calls) == len({call.point for call in calls}) == N_CALLS
        assert workspace.git("status", "--porcelain") == "?? dvc.lock\n"
        assert "up to date" in workspace.command("dvc", "status").stdout
        workspace.git("add", "dvc.lock")
        workspace.git("commit", "--quiet", "--message=Solve")
        assert workspace.git("status", "--porcelain") == ""
        assert workspace.repro() == {}
    told = twins.told
    assert {stage: cost["cache"] for stage, cost in told["stages"].items()} == dict.fromkeys(STAGES, "miss")
    assert told["recommendation"]["n_evaluations"] == N_CALLS
    assert told["notes"] == []


def test_a_second_run_in_the_same_folder_is_refused(twins: Twins) -> None:
    assert twins.by_run.refused is not None
    line = f"surrogate: {twins.by_run.workspace.root}: another run is working here; wait for it, or end it\n"
    assert only_line(twins.by_run.refused) == line


def test_what_a_black_box_prints_in_threads_is_no_part_of_the_json(workspaces: Workspaces, tmp_path: Path) -> None:
    workspace = workspaces(tmp_path / "loud")
    for print_it in ('print("when imported")', 'os.system("echo by a program")'):
        workspace.append("box.py", f"\n{print_it}\n")
    workspace.edit("box.py", "    time.sleep", '    print("when called")\n    time.sleep')
    done = workspace.command("flows", "collect", "--json")
    assert json.loads(done.stdout)["stages"].keys() == {"collect"}
    assert all(line in done.stderr for line in ("when imported", "by a program", "when called"))


def test_both_note_what_each_stage_cost_for_the_page(twins: Twins) -> None:
    for workspace, mlflow_run in (
        (twins.by_run.workspace, twins.told["mlflow_run"]),
        (twins.by_repro.workspace, twins.runs_of_repro[0].info.run_id),
    ):
        noted = json.loads((workspace.root / "runs" / "last_run.json").read_text())
        assert list(noted["stages"]) == list(STAGES)
        assert {entry["mlflow_run"] for entry in noted["stages"].values()} == {mlflow_run}
        assert (noted["run"]["status"], noted["run"]["mlflow_run"]) == ("FINISHED", mlflow_run)
        page = Path(json.loads(workspace.command("flows", "report", "--json").stdout)["page"])
        assert "Out of date" not in page.read_text()
        assert mlflow_run in page.read_text()
        assert workspace.git("status", "--porcelain") in ("", "?? dvc.lock\n")  # neither is versioned
    told, stages = twins.told["stages"], json.loads((twins.by_run.workspace.root / "runs/last_run.json").read_text())
    assert {stage: entry["wall_s"] for stage, entry in stages["stages"].items()} == {
        stage: cost["wall_s"] for stage, cost in told.items()
    }


# --- (c) what MLflow was told


def test_the_mlflow_run_holds_all_there_is_to_know(twins: Twins) -> None:
    from surrogate_core.dataset import Dataset

    told, workspace = twins.told, twins.by_run.workspace
    mlflow = client(workspace)
    run = mlflow.get_run(told["mlflow_run"])
    assert run.info.status == "FINISHED"
    assert run.data.params["collect.n_samples"] == "16"
    assert run.data.params["problem.function"] == "box:evaluate"
    for stage in STAGES:
        assert any(name.startswith(f"{stage}.") for name in run.data.metrics)
        assert run.data.metrics[f"cost.{stage}.wall_s"] == pytest.approx(told["stages"][stage]["wall_s"])
        assert run.data.tags[f"cache.{stage}"] == "miss"
    assert run.data.metrics["tune.final.measured"] == told["recommendation"]["measured"]
    trust = told["recommendation"]["trust"]
    assert run.data.tags["tune.trust"] == f"{trust['verdict']}: {trust['why']}"
    assert run.data.tags["optimize.trust"].startswith(("supported: ", "doubtful: ", "unsupported: "))
    assert run.data.metrics["tune.trust.n_verified"] == trust["n_verified"]
    assert run.data.metrics["tune.gates_passed"] == told["recommendation"]["gates_passed"]
    assert run.data.tags["git.revision"] == workspace.git("rev-list", "--max-parents=0", "HEAD").strip()
    assert len(run.data.tags["params.digest"]) == 64

    inputs = {one.dataset.name: one for one in run.inputs.dataset_inputs}
    assert set(inputs) == {"dataset", "evaluations", "tuning_evaluations"}
    for name, one in inputs.items():
        digest = Dataset.from_bytes((twins.by_run.data / f"{name}.parquet").read_bytes()).digest
        assert digest.startswith(one.dataset.digest)
        assert digest in {tag.value for tag in one.tags}

    specs = mlflow.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert len({tuple(sorted(spec.data.params.items())) for spec in specs}) == 2
    assert all(spec.info.status == "FINISHED" and "nlpd" in spec.data.metrics for spec in specs)

    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert {path.name for path in (artifacts / "pictures").iterdir()} == {
        f"{name}.png"
        for name in (*VALIDATED, *SEARCHED, *AROUND, *(f"optimum_{name}" for name in AROUND), "rounds", *TUNED)
    }
    reports = digests(artifacts / "reports")
    assert set(reports) == {"validation.json", "optimum.json", "tuning.json", "recommendation.json"}
    assert reports.items() <= digests(twins.by_run.data / "reports").items()


LOAD = """
import json, sys
import mlflow, pandas as pd
from surrogate_core import load_surrogate
uri, champion, asked = sys.argv[1:]
asked = pd.DataFrame(json.loads(asked), columns=["x", "y"])
told, fitted = mlflow.pyfunc.load_model(uri).predict(asked), load_surrogate(champion)
told = [told["prediction"], told["uncertainty"]], [of(asked.to_numpy()) for of in (fitted.predict, fitted.uncertainty)]
print(json.dumps([[[float(value).hex() for value in values] for values in one] for one in told]))
"""


def test_a_new_process_loads_the_logged_model_and_predicts_bit_for_bit(twins: Twins, tmp_path: Path) -> None:
    workspace = twins.by_run.workspace
    uri = client(workspace).get_run(twins.told["mlflow_run"]).data.tags["model.uri"]
    X = np.random.default_rng(0).uniform([-1, 0], [2, 3], (7, 2))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, uri, str(twins.by_run.data / "champion"), json.dumps(X.tolist())],
        cwd=tmp_path,
        env={**workspace.environment, "MLFLOW_TRACKING_URI": store(workspace)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    logged, kept = json.loads(done.stdout)
    assert logged == kept
    assert [len(values) for values in logged] == [7, 7]
    files = [path.name for path in (workspace.root / "mlruns").rglob("*") if path.is_file()]
    assert any(name.endswith(".safetensors") for name in files)
    assert not [name for name in files if Path(name).suffix in {".pkl", ".pickle", ".cloudpickle", ".joblib"}]


def test_the_stages_of_one_repro_share_one_mlflow_run(twins: Twins) -> None:
    (run,) = twins.runs_of_repro
    assert run.info.status == "FINISHED"
    assert {run.data.tags[f"cache.{stage}"] for stage in STAGES} == {"miss"}
    one = client(twins.by_run.workspace).get_run(twins.told["mlflow_run"])
    assert run.data.tags["params.digest"] == one.data.tags["params.digest"]

    def results(metrics: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if not name.startswith("cost.")}

    assert results(run.data.metrics) == results(one.data.metrics)


def test_the_pages_of_mlflow_and_prefect_are_served_until_ctrl_c(twins: Twins) -> None:
    workspace = twins.by_run.workspace
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before = at_work(workspace)
    serving = workspace.start("flows", "ui", "--port", str(port))
    assert serving.stdout is not None
    told = [serving.stdout.readline() for _ in range(3)]
    assert told[0] == f"MLflow   http://127.0.0.1:{port}\n"
    for line in told[:2]:
        with urllib.request.urlopen(line.split()[1]) as page:
            assert page.status == 200
    taken = workspace.command("flows", "ui", "--port", str(port), status=2)
    assert only_line(taken).startswith(f"surrogate: --port: expected a free port of this machine, got {port} (")
    serving.send_signal(signal.SIGINT)
    done = finish(serving, 0)
    assert done.stderr == ""
    assert at_work(workspace) == before


# --- (d) other settings


def test_a_run_is_profiled_on_one_page(twins: Twins) -> None:
    workspace = twins.by_run.workspace
    done = workspace.command("flows", "profile", "--", "run", "--json")
    assert set(json.loads(done.stdout)["stages"]) == set(STAGES)
    page = workspace.root / "runs" / "profiles" / "surrogate-run.html"
    assert done.stderr == f"profile  {page.as_uri()}\n"
    told = json.loads(page.with_suffix(".json").read_text())
    (span,) = told["spans"]
    assert span["name"] == "surrogate run --json"
    names = [child["name"] for child in span["children"]]
    assert names == ["start", "track", *(name for stage in STAGES for name in (stage, "publish"))]
    assert told["timing_summary"]["publish"]["call_count"] == len(STAGES)
    assert any(one["function"] == "run_stages" for one in told["functions"])
    assert "run_stages" in page.read_text()


def test_other_settings_go_elsewhere_and_a_failed_gate_may_stop_them(twins: Twins) -> None:
    workspace = twins.by_run.workspace

    def versioned() -> Any:
        lock = (workspace.root / "dvc.lock").read_text()
        return workspace.data(), lock, workspace.git("status", "--porcelain"), workspace.git("rev-parse", "HEAD")

    before, calls = versioned(), len(workspace.calls())
    line = workspace.refused("-S", "gates.on_fail=stop", "-S", "gates.min_r2=2.0", status=1)
    assert line.startswith("surrogate: optimize: the model fails min_r2 2 (it is ")
    (elsewhere,) = (path.parent for path in (workspace.root / "runs").glob("*/data"))
    assert len(elsewhere.name) == 12
    assert sorted(path.name for path in (elsewhere / "data").iterdir()) == ["dataset.parquet", "model", "reports"]
    assert [path.name for path in (elsewhere / "data" / "reports").iterdir()] == ["validation.json"]
    assert versioned() == before
    assert len(workspace.calls()) == calls
    newest = runs(workspace)[0]
    assert newest.info.status == "FAILED"
    assert newest.data.tags["outputs"] == str(elsewhere)
    shutil.rmtree(elsewhere)


# --- (b) what reruns after an edit

VALIDATED = ("parity", "calibration", "gradients", "learning_curve", "sensitivity", "reach")
SEARCHED = ("convergence", "optima", "promises")
TUNED = ("trials", "spec_slices", "spec_lines")
AROUND = ("slices", "planes", "gradient_field")  # the design; the problem has two variables
READS = {  # files of earlier stages
    "collect": [],
    "fit": ["dataset.parquet"],
    "validate": ["dataset.parquet", "model/"],
    "optimize": ["dataset.parquet", "model/", "reports/validation.json"],
    "tune": ["dataset.parquet", "model/", "reports/validation.json", "evaluations.parquet", "reports/optimum.json"],
}


@dataclass(frozen=True)
class Edit:
    """An edit, and the stages that read what it changes themselves."""

    name: str
    make: Callable[[Workspace], None]
    readers: Sequence[str]
    restore: bool = True  # DVC may restore what `surrogate run` has committed, else it runs stages itself


def comment(workspace: Workspace) -> None:
    workspace.append("box.py", "# a comment\n")


def raised(seed: int) -> Callable[[Workspace], None]:
    return lambda workspace: workspace.edit("params.yaml", f"seed: {seed}", f"seed: {seed + 1}")


CODE = [Edit("black box: a comment", comment, ("collect", "validate", "optimize", "tune"))]
SEEDS = [
    Edit("collect.seed", raised(10), ("collect",)),
    Edit("tune.seed", raised(50), ("tune",), restore=False),
]


@dataclass(frozen=True)
class Rerun:
    """What an edit made rerun, and what it should have."""

    edit: Edit
    by_run: list[str]
    by_repro: dict[str, str]
    expected: list[str]
    rewritten: set[Path]  # what `surrogate run` wrote, were it the same bytes


def written(workspace: Workspace) -> dict[Path, int]:
    """When each output was written, the size of each cached result, and how often the black box was called."""
    outputs = {path: path.stat().st_mtime_ns for path in (workspace.root / "data").rglob("*")}
    results = {path: path.stat().st_size for path in (workspace.root / ".surrogate" / "results").iterdir()}
    return outputs | results | {workspace.calls_file: len(workspace.calls())}


def changed(before: dict[str, str], after: dict[str, str], path: str) -> bool:
    """Whether a file, or one in a folder, differs."""
    one, other = ({name: data[name] for name in data if name.startswith(path)} for data in (before, after))
    return one != other


def rerun(one: Workspace, other: Workspace, edits: Sequence[Edit]) -> list[Rerun]:
    """Makes edits, one on top of the other, and solves one workspace by `surrogate run`, the other by `dvc repro`."""
    # What is committed in one is in the run cache of the other: DVC's decisions are seen without waiting for stages.
    other.command("dvc", "cache", "dir", "--local", str(one.root / ".dvc" / "cache"))
    table = []
    for edit in edits:
        before, files = one.data(), written(one)
        edit.make(one)
        told = one.run()
        by_run = [stage for stage, cost in told["stages"].items() if cost["cache"] == "miss"]
        rewritten = {path for path, _ in written(one).items() ^ files.items()}
        edit.make(other)
        by_repro = other.repro() if edit.restore else other.repro("--no-run-cache")
        assert one.data() == other.data(), edit.name
        assert (one.root / "dvc.lock").read_text() == (other.root / "dvc.lock").read_text(), edit.name
        files_read = {stage: [path for path in READS[stage] if changed(before, one.data(), path)] for stage in STAGES}
        expected = [stage for stage in STAGES if stage in edit.readers or files_read[stage]]
        table.append(Rerun(edit, by_run, by_repro, expected, rewritten))
    return table


def second(workspace: Workspace, root: Path) -> Workspace:
    """A workspace like another one, with a tracking store of its own."""
    shutil.copytree(workspace.root, root, symlinks=True, ignore=shutil.ignore_patterns("mlruns"))
    return Workspace(root.resolve(), workspace.environment)


def test_an_edit_reruns_exactly_the_stages_whose_inputs_it_changed(
    twins: Twins, background: ThreadPoolExecutor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = twins.by_run.workspace, twins.by_repro.workspace
    seeded, reseeded = second(one, tmp_path / "run"), second(other, tmp_path / "repro")
    beside = background.submit(rerun, one, other, CODE)
    table = [*rerun(seeded, reseeded, SEEDS), *beside.result()]

    with capsys.disabled():
        print(f"\n{'edit':<22} {'surrogate run worked on':<40} dvc repro found out of date")  # noqa: T201
        for row in table:
            said = " ".join(f"{stage}{'*' if how == 'restored' else ''}" for stage, how in row.by_repro.items())
            print(f"{row.edit.name:<22} {' '.join(row.by_run) or '-':<40} {said or '-'}")  # noqa: T201
        print("* restored from the run cache, where `surrogate run` has committed them")  # noqa: T201
    for row in table:
        assert row.by_run == row.expected, row.edit.name
        assert list(row.by_repro) == row.expected, row.edit.name
        assert row.by_run or not row.rewritten, row.edit.name
        assert set(row.by_repro.values()) <= {"restored" if row.edit.restore else "ran"}, row.edit.name
    ran = {row.edit.name: row.by_run for row in table}
    assert ran["black box: a comment"] == [
        "collect",
        "validate",
        "optimize",
        "tune",
    ]  # the dataset is the same, so fit was spared
    assert ran["collect.seed"] == list(STAGES)
    assert ran["tune.seed"] == ["tune"]
    (run,) = runs(reseeded)  # what DVC skipped is published all the same
    told = {stage: run.data.tags[f"cache.{stage}"] for stage in STAGES}
    assert told == dict.fromkeys(STAGES, "skipped by dvc") | {"tune": "miss"}
