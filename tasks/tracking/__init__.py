"""MLflow, which only observes: runs, metrics, pictures and models, published from the reports on disk.

All of it goes through a client and a run id, never the thread's active run, which does not follow work elsewhere.
Nothing here changes a result, and a cached result is published like a fresh one.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import orjson
import psutil
from mlflow import MlflowClient
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import DatasetInput, InputTag, Metric, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from surrogate_core.atomic import write_file
from surrogate_core.performance.profiler import Cost, PerformanceProfiler
from tasks.errors import StageFailed
from tasks.keys import DATASET, EVALUATIONS, STAGES, TUNED_EVALUATIONS
from tasks.outputs import read_dataset
from tasks.reports import USERS_OWN, Report, study_rows
from tasks.tracking.registry import MODEL_NAME, publish_model
from tasks.tracking.store import (
    end_killed_runs,
    first_line,
    observing,
    open_store,
    process_tags,
    safe_name,
    settings_params,
)
from tasks.tracking.study import Curves, log_trials
from tasks.workspace import Workspace

Cache = Literal["hit", "miss", "skipped by dvc"]
Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker:
    """One MLflow run, which a pipeline, or the stages of one `dvc repro`, publish to.

    A store that fails once the run is open does not stop the work: `trouble` says what was not published, a line each.
    """

    def __init__(self, workspace: Workspace, client: MlflowClient, run_id: str):
        self.workspace = workspace
        self.client = client
        self.run_id = run_id
        self.trouble: list[str] = []
        self._version: str | None = None

    @classmethod
    def start(cls, workspace: Workspace, tags: Mapping[str, str] | None = None) -> "Tracker":
        """Opens a new run with the settings as its parameters."""
        client, experiment = open_store(workspace.root)
        end_killed_runs(client, experiment)
        run = client.create_run(experiment, tags={**_tags(workspace), **(tags or {})})
        tracker = cls(workspace, client, run.info.run_id)
        with observing("settings", tracker.trouble):
            client.log_batch(tracker.run_id, params=settings_params(asdict(workspace.settings)))
        return tracker

    @classmethod
    def join(cls, workspace: Workspace, dvc_process: str) -> "Tracker":
        """Opens the run that the other stages of one `dvc repro` publish to, or starts it."""
        client, experiment = open_store(workspace.root)
        digest = workspace.settings.digest
        where = f"tags.`dvc.process` = '{dvc_process}' and tags.`params.digest` = '{digest}'"
        found = client.search_runs([experiment], where, max_results=1)
        if not found:
            return cls.start(workspace, {"dvc.process": dvc_process})
        tracker = cls(workspace, client, found[0].info.run_id)
        client.update_run(tracker.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        tracker.tag(process=_tags(workspace)["process"])
        return tracker

    def published(self) -> set[str]:
        """The stages that the run has already."""
        tags: Mapping[str, str] = {}
        with observing("skipped stages", self.trouble):
            tags = self.client.get_run(self.run_id).data.tags
        return {name.removeprefix("cache.") for name in tags if name.startswith("cache.")}

    def publish(
        self, report: Report, key: str, cache: Cache, cost: Cost | None, profiler: PerformanceProfiler | None = None
    ) -> None:
        """Logs a stage that ran under a key: metrics, pictures, cost, profile, and whether it was cached."""
        with observing(report.stage, self.trouble):
            self._publish(report, key, cache, cost)
            if profiler is not None:
                self._log_profile(report.stage, profiler)

    def _log_profile(self, stage: str, profiler: PerformanceProfiler) -> None:
        """As files under `profiles`, which also stay beside the pictures, and of each operation its seconds."""
        now, times = int(time.time() * 1000), profiler.get_performance_summary()["timing_summary"]
        told = {f"cost.{stage}.{name}.total_s": one["total_time"] for name, one in times.items() if name != stage}
        self.client.log_batch(self.run_id, metrics=[Metric(safe_name(name), s, now, 0) for name, s in told.items()])
        for ending in (".json", ".speedscope.json", ".svg"):
            path = profiles_folder(self.workspace) / f"{stage}{ending}"
            profiler.save(path)
            self.client.log_artifact(self.run_id, str(path), "profiles")

    def _drawn(self, report: Report, key: str) -> Iterator[Path]:
        """The pictures of a stage; drawn, unless those are there that were drawn when it last ran under its key."""
        index = pictures_folder(self.workspace) / "drawn.json"
        drawn: dict[str, str] = orjson.loads(index.read_bytes()) if index.exists() else {}
        for name, draw in report.figures.items():
            picture = index.with_name(f"{name}.png")
            if drawn.get(name) != key or name == USERS_OWN or not picture.exists():
                try:
                    from tasks.pictures import png

                    write_file(picture, png(draw()))
                except Exception as error:  # noqa: BLE001 - a figure may be the user's own
                    self.trouble.append(f"{report.stage}: the picture {name} could not be drawn: {error!r}")
                    continue
            yield picture
            drawn[name] = key
        write_file(index, orjson.dumps(drawn))

    def _publish(self, report: Report, key: str, cache: Cache, cost: Cost | None) -> None:
        values = {f"{report.stage}.{name}": value for name, value in report.metrics.items()}
        if cost is not None:
            values |= {f"cost.{report.stage}.{name}": value for name, value in asdict(cost).items()}
        now = int(time.time() * 1000)
        metrics = [Metric(safe_name(name), float(value), now, 0) for name, value in values.items()]
        for row in report.tables.get("rounds", ()):  # a curve a metric
            numbers = {name: value for name, value in row.items() if isinstance(value, float)}
            metrics += [Metric(f"rounds.{name}", value, now, row["round"]) for name, value in numbers.items()]
        tags = {
            f"cache.{report.stage}": cache,
            **{f"{report.stage}.{name}": told for name, told in report.tags.items()},
        }
        run_tags = [RunTag(name, told) for name, told in tags.items()]
        self.client.log_batch(self.run_id, metrics=metrics, tags=run_tags)
        for picture in self._drawn(report, key):
            self.client.log_artifact(self.run_id, str(picture), "pictures")
        for path in STAGES[report.stage].outs:
            if path.endswith(".json"):
                self.client.log_artifact(self.run_id, str(self.workspace.out / path), "reports")
        if report.stage == "collect":
            self._log_dataset(DATASET, "collected")
        if report.stage == "optimize":
            self._log_dataset(EVALUATIONS, "evaluated")
        if report.stage == "tune":
            self._log_dataset(TUNED_EVALUATIONS, "evaluated")
            self._log_trials(report.tables["trials"])
            made = publish_model(self.client, self.run_id, self.workspace)
            self._version = str(made.version)
            self.tag(**{"model.uri": f"models:/{made.tags['model_id']}"})

    def end(self, status: Status) -> None:
        with observing(f"that the run {status.lower()}", self.trouble):
            self.client.set_terminated(self.run_id, status)

    def promote(self) -> str:
        """Moves @champion to the model version that this run published, and returns that version.

        Raises:
            StageFailed: MLflow failed, then or when the model was published.
        """
        if self._version is None:
            said = "; ".join(self.trouble) or "tune"
            raise StageFailed(f"promote: MLflow's run {self.run_id} has no model; {said}")
        try:
            self.client.set_registered_model_alias(MODEL_NAME, "champion", self._version)
        except MlflowException as error:
            raise StageFailed(f"promote: MLflow could not move @champion: {first_line(error)}") from error
        return self._version

    def tag(self, **tags: str) -> None:
        self.client.log_batch(self.run_id, tags=[RunTag(name, value[:5000]) for name, value in tags.items()])

    def _log_dataset(self, path: str, context: str) -> None:
        rows = read_dataset(self.workspace, path)
        made = from_numpy(rows.X, targets=rows.y, name=Path(path).stem, digest=rows.digest[:32])
        tags = [InputTag("mlflow.data.context", context), InputTag("sha256", rows.digest)]
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(made._to_mlflow_entity(), tags)])

    def _log_trials(self, trials: Sequence[Mapping[str, Any]]) -> None:
        rows = study_rows(trials, "nlpd")
        curves = Curves(self.client, self.run_id, "nlpd", 1.0)
        for row in rows:
            curves.add(row["number"], row["value"], row["status"])
        curves.send()
        log_trials(self.client, self.run_id, rows, "nlpd", 1.0, "spec")


def pictures_folder(workspace: Workspace) -> Path:
    """Where the pictures of the last run are, for people; they are not versioned."""
    return workspace.unversioned / "pictures"


def profiles_folder(workspace: Workspace) -> Path:
    """Where the profiles of the last run are."""
    return workspace.unversioned / "profiles"


def dvc_process() -> str | None:
    """The DVC process that runs this stage, as `pid:start`; None when there is none."""
    if not os.environ.get("DVC_STAGE"):
        return None
    for parent in psutil.Process().parents():
        try:
            if any(Path(word).name == "dvc" for word in parent.cmdline()[:3]) or "dvc" in parent.cmdline()[:3]:
                return f"{parent.pid}:{parent.create_time():.2f}"
        except psutil.Error:
            continue
    return None


def _tags(workspace: Workspace) -> dict[str, str]:
    tags = {"params.digest": workspace.settings.digest, "outputs": str(workspace.out)}
    return {**process_tags(workspace.root), **tags}
