"""MLflow only observes: what it cannot take is told, and the work goes on; a mistake of ours is not hidden."""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name

from surrogate_core import GPSurrogate, collect_data
from surrogate_core.performance.profiler import Cost
from surrogate_core.surrogates.files import surrogate_files
from tasks import tracking
from tasks.errors import StageFailed
from tasks.reports import USERS_OWN, Report
from tasks.settings import load_settings
from tasks.tracking import Tracker, pictures_folder
from tasks.workspace import Workspace

PARAMS = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture
def client() -> Mock:
    return Mock(spec=MlflowClient)


@pytest.fixture
def tracker(tmp_path: Path, client: Mock) -> Tracker:
    return Tracker(Workspace.of(tmp_path, load_settings(PARAMS), foreign=False), client, "run")


@pytest.mark.parametrize("error", [MlflowException("gone\nfor good"), OSError(28, "No space left on device")])
def test_a_store_that_fails_is_told_and_stops_nothing(error: Exception, tracker: Tracker, client: Mock) -> None:
    client.log_batch.side_effect = client.set_terminated.side_effect = error
    tracker.publish(Report("validate", "fine"), "key", "miss", Cost(wall_s=1, cpu_s=1, compile_s=0, peak_mb=1))
    tracker.end("FINISHED")
    first, last = tracker.trouble
    assert first.startswith("validate not published to MLflow: ")
    assert last.startswith("that the run finished not published to MLflow: ")
    assert all("\n" not in line for line in tracker.trouble)


@pytest.mark.parametrize("name", ["Temp (°C)", "100 %", "speed [m/s]", "a//b", "µ", "x"])
def test_a_variable_of_any_name_is_published(name: str, tracker: Tracker, client: Mock) -> None:
    tracker.publish(Report("fit", "fine", {f"lengthscale.{name}": 1.0}), "key", "miss", None)
    assert tracker.trouble == []
    (logged,) = client.log_batch.call_args.kwargs["metrics"]
    assert _validate_metric_name(logged.key) is None
    assert logged.key.startswith("fit.lengthscale.")


def test_a_picture_is_drawn_once_a_key_and_the_users_own_each_time(tracker: Tracker, client: Mock) -> None:
    drawn: list[str] = []

    def figures() -> dict[str, Callable[[], Figure]]:
        return {name: lambda name=name: (drawn.append(name), Figure())[1] for name in ("parity", USERS_OWN)}

    for key in ("first", "first", "second"):
        tracker.publish(Report("validate", "fine", figures=figures()), key, "hit", None)
    assert drawn == ["parity", USERS_OWN, USERS_OWN, "parity", USERS_OWN]
    (pictures_folder(tracker.workspace) / "parity.png").unlink()
    tracker.publish(Report("validate", "fine", figures=figures()), "second", "hit", None)
    assert drawn[5:] == ["parity", USERS_OWN]
    logged = [call.args[1] for call in client.log_artifact.call_args_list if call.args[2] == "pictures"]
    assert [Path(path).stem for path in logged] == ["parity", USERS_OWN] * 4
    assert tracker.trouble == []


def test_a_mistake_of_ours_is_not_hidden(tracker: Tracker, client: Mock) -> None:
    client.log_batch.side_effect = KeyError("round")
    with pytest.raises(KeyError):
        tracker.publish(Report("validate", "fine"), "key", "miss", None)


def test_a_model_is_a_new_version_only_where_it_differs_and_promotion_takes_that_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = mlflow.get_tracking_uri()
    data = collect_data(lambda x: float(x[0] ** 2), n_samples=8, bounds=[(-1, 1)])
    files = {"data/dataset.parquet": data.to_bytes(), "data/tuning_evaluations.parquet": data.to_bytes()}
    files |= dict.fromkeys(("data/reports/tuning.json", "data/reports/recommendation.json"), b"{}")
    workspace = Workspace.of(tmp_path, load_settings(PARAMS), foreign=False)
    versions, uris = [], []
    for kernel in ("matern52", "matern52", "matern32"):
        fitted = GPSurrogate(kernel=kernel).fit(data)
        for path, content in {**files, **{f"data/champion/{k}": v for k, v in surrogate_files(fitted).items()}}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(content)
        tracker = Tracker.start(workspace)
        tracker.publish(Report("tune", "fine", tables={"trials": []}), "key", "hit", None)
        tracker.end("FINISHED")
        assert tracker.trouble == []
        versions.append(tracker.promote())
        run = tracker.client.get_run(tracker.run_id)
        uris.append(run.data.tags["model.uri"])
        assert [f"models:/{output.model_id}" for output in run.outputs.model_outputs] == uris[-1:]
    mlflow.set_tracking_uri(before)
    assert versions == ["1", "1", "2"]
    assert uris[0] == uris[1] != uris[2]
    assert int(tracker.client.get_model_version_by_alias("surrogate", "champion").version) == 2


def test_without_a_model_nothing_is_promoted(tracker: Tracker, client: Mock) -> None:
    with pytest.raises(StageFailed, match="promote: MLflow's run run has no model"):
        tracker.promote()
    client.set_registered_model_alias.assert_not_called()


def test_an_alias_that_cannot_be_moved_is_one_line(
    tracker: Tracker, client: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "publish_model", lambda *_: Mock(version="1", tags={"model_id": "m-1"}))
    monkeypatch.setattr(tracker, "_log_dataset", lambda *_: None)
    tracker.publish(Report("tune", "fine", tables={"trials": []}), "key", "hit", None)
    client.set_registered_model_alias.side_effect = MlflowException("locked\nfor good")
    with pytest.raises(StageFailed, match=r"^promote: MLflow could not move @champion: locked$"):
        tracker.promote()
