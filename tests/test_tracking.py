"""MLflow only observes: what it cannot take is told, and the work goes on; a mistake of ours is not hidden."""

from pathlib import Path
from unittest.mock import Mock

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name

from surrogate_core.performance.profiler import Cost
from tasks.errors import StageFailed
from tasks.reports import Report
from tasks.settings import load_settings
from tasks.tracking import Tracker
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
    tracker.publish(Report("validate", "fine"), "miss", Cost(wall_s=1, cpu_s=1, compile_s=0, peak_mb=1))
    tracker.end("FINISHED")
    first, last = tracker.trouble
    assert first.startswith("validate not published to MLflow: ")
    assert last.startswith("that the run finished not published to MLflow: ")
    assert all("\n" not in line for line in tracker.trouble)


@pytest.mark.parametrize("name", ["Temp (°C)", "100 %", "speed [m/s]", "a//b", "µ", "x"])
def test_a_variable_of_any_name_is_published(name: str, tracker: Tracker, client: Mock) -> None:
    tracker.publish(Report("fit", "fine", {f"lengthscale.{name}": 1.0}), "miss", None)
    assert tracker.trouble == []
    (logged,) = client.log_batch.call_args.kwargs["metrics"]
    assert _validate_metric_name(logged.key) is None
    assert logged.key.startswith("fit.lengthscale.")


def test_a_mistake_of_ours_is_not_hidden(tracker: Tracker, client: Mock) -> None:
    client.log_batch.side_effect = KeyError("round")
    with pytest.raises(KeyError):
        tracker.publish(Report("validate", "fine"), "miss", None)


def test_promotion_takes_the_model_of_its_own_run(tracker: Tracker, client: Mock) -> None:
    client.search_model_versions.return_value = [Mock(version="9"), Mock(version="10")]
    assert tracker.promote() == "10"
    client.search_model_versions.assert_called_once_with("run_id = 'run'")
    client.set_registered_model_alias.assert_called_once_with("surrogate", "champion", "10")


def test_without_a_model_nothing_is_promoted(tracker: Tracker, client: Mock) -> None:
    client.search_model_versions.return_value = []
    with pytest.raises(StageFailed, match="promote: MLflow's run run has no model"):
        tracker.promote()
    client.set_registered_model_alias.assert_not_called()


def test_an_alias_that_cannot_be_moved_is_one_line(tracker: Tracker, client: Mock) -> None:
    client.search_model_versions.return_value = [Mock(version="1")]
    client.set_registered_model_alias.side_effect = MlflowException("locked\nfor good")
    with pytest.raises(StageFailed, match=r"^promote: MLflow could not move @champion: locked$"):
        tracker.promote()
