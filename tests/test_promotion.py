"""Promotion writes the challenger's spec into params.yaml and leaves the rest of the file as its author wrote it."""

import difflib
from pathlib import Path
from typing import Any

import orjson
import pytest

from flows.promotion import history, promote, with_surrogate
from surrogate_core import GPSurrogate
from surrogate_core.surrogates.base import Surrogate
from tasks.errors import BadInput, StageFailed
from tasks.settings import load_settings

PARAMS = Path(__file__).parents[1] / "params.yaml"


def changed_lines(before: str, after: str) -> list[str]:
    diff = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in diff if line[0] in "+-" and not line.startswith(("+++", "---"))]


def test_only_the_changed_fields_of_the_spec_change(tmp_path: Path) -> None:
    before = PARAMS.read_text()
    champion = load_settings(PARAMS).fit.spec
    challenger = GPSurrogate(kernel="rbf", prior="flat", n_starts=4)
    after = with_surrogate(before, challenger.to_config())
    n_changed = sum(getattr(champion, name) != getattr(challenger, name) for name in ("kernel", "prior", "n_starts"))
    assert len(changed_lines(before, after)) == 2 * n_changed
    (tmp_path / "params.yaml").write_text(after)
    assert load_settings(tmp_path / "params.yaml").fit.spec == challenger


def test_a_field_that_was_left_at_its_default_is_added_where_it_matters(tmp_path: Path) -> None:
    challenger = GPSurrogate(max_iterations=50)
    (tmp_path / "params.yaml").write_text(with_surrogate(PARAMS.read_text(), challenger.to_config()))
    assert load_settings(tmp_path / "params.yaml").fit.spec == challenger


def tuning(challenger: GPSurrogate, better: bool = True, champion: Surrogate | None = None) -> dict[str, Any]:
    """What of a tuning a promotion reads."""
    champion = champion or load_settings(PARAMS).fit.spec
    return {
        "challenger_is_better": better,
        "champion": {"surrogate": champion.to_config()},
        "challenger": {"surrogate": challenger.to_config()},
        "advantage": {"mean_log_density": 0.5, "standard_error": 0.25},
    }


@pytest.mark.parametrize("better", [True, False])
def test_the_alias_and_the_file_change_only_for_a_better_challenger(better: bool, tmp_path: Path) -> None:
    challenger = GPSurrogate(kernel="rbf")
    reports = tmp_path / "data" / "reports"
    reports.mkdir(parents=True)
    (reports / "tuning.json").write_bytes(orjson.dumps(tuning(challenger, better)))
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    moved: list[str] = []

    def move() -> str:
        moved.append("3")
        return "3"

    line = promote(tmp_path, move)
    assert (load_settings(tmp_path / "params.yaml").fit.spec == challenger) == better
    assert moved == (["3"] if better else [])
    assert ("@champion is version 3" in line) == better
    assert [entry["version"] for entry in history(tmp_path)] == moved


def test_the_history_tells_of_every_champion_in_turn(tmp_path: Path) -> None:
    (tmp_path / "data" / "reports").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    for version, kernel in (("1", "rbf"), ("2", "matern32")):
        champion = load_settings(tmp_path / "params.yaml").fit.spec
        told = tuning(GPSurrogate(kernel=kernel), champion=champion)  # type: ignore[arg-type]
        (tmp_path / "data" / "reports" / "tuning.json").write_bytes(orjson.dumps(told))
        line = promote(tmp_path, lambda version=version: version)
    assert "data/champions.json tells of 2 promotions" in line
    assert [(entry["champion"]["kernel"], entry["version"]) for entry in history(tmp_path)] == [
        ("rbf", "1"),
        ("matern32", "2"),
    ]
    assert history(tmp_path)[1]["advantage"] == {"mean_log_density": 0.5, "standard_error": 0.25}


def test_only_what_was_compared_is_promoted_and_once(tmp_path: Path) -> None:
    (tmp_path / "data" / "reports").mkdir(parents=True)
    (tmp_path / "data" / "reports" / "tuning.json").write_bytes(orjson.dumps(tuning(GPSurrogate(kernel="rbf"))))
    edited = PARAMS.read_text().replace("kernel: matern52", "kernel: matern12")
    assert edited != PARAMS.read_text()
    (tmp_path / "params.yaml").write_text(edited)
    with pytest.raises(BadInput, match=r"^fit\.surrogate: expected the champion that was compared, .*, got .*matern12"):
        promote(tmp_path, lambda: pytest.fail("the alias was moved"))
    assert (tmp_path / "params.yaml").read_text() == edited
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    assert promote(tmp_path, lambda: "1").startswith("promoted: ")
    assert promote(tmp_path, lambda: pytest.fail("moved again")) == "the challenger is the champion already"
    assert len(history(tmp_path)) == 1


@pytest.mark.parametrize("damaged", ["[", "{}"])
def test_a_damaged_history_stops_a_promotion_before_anything_is_done(damaged: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "reports").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    (tmp_path / "data" / "reports" / "tuning.json").write_bytes(orjson.dumps(tuning(GPSurrogate(kernel="rbf"))))
    (tmp_path / "data" / "champions.json").write_text(damaged)
    with pytest.raises(BadInput, match=r"champions\.json: expected a list of promotions, got"):
        promote(tmp_path, lambda: pytest.fail("the alias was moved"))
    assert (tmp_path / "params.yaml").read_text() == PARAMS.read_text()


def test_an_alias_that_cannot_be_moved_leaves_the_file(tmp_path: Path) -> None:
    reports = tmp_path / "data" / "reports"
    reports.mkdir(parents=True)
    (reports / "tuning.json").write_bytes(orjson.dumps(tuning(GPSurrogate(kernel="rbf"))))
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())

    def move() -> str:
        raise StageFailed("no model")

    with pytest.raises(StageFailed, match="no model"):
        promote(tmp_path, move)
    assert (tmp_path / "params.yaml").read_text() == PARAMS.read_text()
