"""Promotion writes the challenger's spec into params.yaml and leaves the rest of the file as its author wrote it."""

import difflib
from pathlib import Path

import orjson
import pytest

from flows.promotion import promote, with_surrogate
from surrogate_core import GPSurrogate
from tasks.errors import StageFailed
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


@pytest.mark.parametrize("better", [True, False])
def test_the_alias_and_the_file_change_only_for_a_better_challenger(better: bool, tmp_path: Path) -> None:
    challenger = GPSurrogate(kernel="rbf")
    reports = tmp_path / "data" / "reports"
    reports.mkdir(parents=True)
    told = {"challenger_is_better": better, "challenger": {"surrogate": challenger.to_config()}}
    (reports / "tuning.json").write_bytes(orjson.dumps(told))
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    moved: list[str] = []

    def move() -> str:
        moved.append("3")
        return "3"

    line = promote(tmp_path, move)
    assert (load_settings(tmp_path / "params.yaml").fit.spec == challenger) == better
    assert moved == (["3"] if better else [])
    assert ("@champion is version 3" in line) == better


def test_an_alias_that_cannot_be_moved_leaves_the_file(tmp_path: Path) -> None:
    reports = tmp_path / "data" / "reports"
    reports.mkdir(parents=True)
    told = {"challenger_is_better": True, "challenger": {"surrogate": GPSurrogate(kernel="rbf").to_config()}}
    (reports / "tuning.json").write_bytes(orjson.dumps(told))
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())

    def move() -> str:
        raise StageFailed("no model")

    with pytest.raises(StageFailed, match="no model"):
        promote(tmp_path, move)
    assert (tmp_path / "params.yaml").read_text() == PARAMS.read_text()
