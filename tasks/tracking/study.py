"""Studies in MLflow: the values of all trials as curves of one run, and the best trials as runs nested in it."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from tasks.tracking.store import end_killed_runs, observing, open_store, process_tags, safe_name, settings_params

AT_ONCE = 1000  # metrics that MLflow takes in one batch
MOST_NESTED = 100  # trials that get a run of their own: each takes three requests


def log_trials(
    client: MlflowClient, run_id: str, rows: Sequence[Mapping[str, Any]], metric: str, sign: float, name: str
) -> None:
    """The best trials as runs nested in another; all of them where there are no more than MOST_NESTED.

    Args:
        client, run_id: of the run.
        rows: `number`, `value` (None where there is none), `status`, `reason` and `params` of each.
        metric: what the value is called.
        sign: 1 where the least value is best, -1 where the greatest is.
        name: of a trial, before its number.
    """
    experiment, now = client.get_run(run_id).info.experiment_id, int(time.time() * 1000)
    best_first = sorted(rows, key=lambda row: (row["status"] != "ok", sign * (row["value"] or 0.0)))
    for row in sorted(best_first[:MOST_NESTED], key=lambda row: row["number"]):
        tags = {"mlflow.parentRunId": run_id, "mlflow.runName": f"{name}-{row['number'] + 1}", "status": row["status"]}
        nested = client.create_run(experiment, tags=tags).info.run_id
        params = [Param(safe_name(key), str(value)[:6000]) for key, value in row["params"].items()]
        metrics = [] if row["value"] is None else [Metric(metric, row["value"], now, 0)]
        told = [RunTag("reason", row["reason"])] if row["reason"] else []
        client.log_batch(nested, metrics=metrics, params=params, tags=told)
        client.set_terminated(nested, "FAILED" if row["status"] == "failed" else "FINISHED")


class Curves:
    """Values of trials as they come, and the best so far, which are sent to MLflow many at a time.

    Args:
        client, run_id: of the run.
        metric: what a value is called.
        sign: 1 where the least value is best, -1 where the greatest is.
    """

    EVERY_SECONDS = 5.0

    def __init__(self, client: MlflowClient, run_id: str, metric: str, sign: float) -> None:
        self._client, self._run_id, self._metric, self._sign = client, run_id, metric, sign
        self._waiting: list[Metric] = []
        self._best: float | None = None
        self._sent = time.monotonic()

    def add(self, number: int, value: float | None, status: str) -> None:
        """A trial that has ended."""
        if value is None:
            return
        now = int(time.time() * 1000)
        self._waiting.append(Metric(f"trial.{self._metric}", value, now, number))
        if status == "ok" and (self._best is None or self._sign * value < self._sign * self._best):
            self._best = value
            self._waiting.append(Metric(f"best.{self._metric}", value, now, number))
        if len(self._waiting) >= AT_ONCE - 1 or time.monotonic() - self._sent >= self.EVERY_SECONDS:
            self.send()

    def send(self) -> None:
        """What has not been sent."""
        waiting, self._waiting, self._sent = self._waiting, [], time.monotonic()
        for i in range(0, len(waiting), AT_ONCE):
            self._client.log_batch(self._run_id, metrics=waiting[i : i + AT_ONCE])


class StudyRun:
    """The MLflow run of a study of an objective of one's own; `trouble` says what was not published.

    Args:
        root: the folder of the project.
        name: of the run.
        settings: of the study.
        sign: 1 where the least value is best, -1 where the greatest is.

    Raises:
        TrackingUnreachable: a store was named and does not answer.
    """

    def __init__(self, root: Path, name: str, settings: Mapping[str, Any], sign: float) -> None:
        self._client, experiment = open_store(root)
        end_killed_runs(self._client, experiment)
        tags = {**process_tags(root), "mlflow.runName": name}
        self.run_id = self._client.create_run(experiment, tags=tags).info.run_id
        self.trouble: list[str] = []
        self._sign = sign
        self._curves = Curves(self._client, self.run_id, "value", sign)
        with observing("settings", self.trouble):
            self._client.log_batch(self.run_id, params=settings_params(settings))

    def add(self, number: int, value: float | None, status: str) -> None:
        """A trial that has ended."""
        if not self.trouble:
            with observing("trials", self.trouble):
                self._curves.add(number, value, status)

    def publish(self, rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        """What a study came to.

        Args:
            rows: trials, as of `log_trials`.
            metrics: of the study.
            files: pictures and reports.
        """
        with observing("the study", self.trouble):
            self._curves.send()
            now = int(time.time() * 1000)
            told = [Metric(safe_name(name), value, now, 0) for name, value in metrics.items()]
            self._client.log_batch(self.run_id, metrics=told)
            log_trials(self._client, self.run_id, rows, "value", self._sign, "trial")
            for file in files:
                self._client.log_artifact(self.run_id, str(file), "pictures" if file.suffix == ".png" else "reports")

    def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        with observing(f"that the run {status.lower()}", self.trouble):
            self._curves.send()
            self._client.set_terminated(self.run_id, status)
