"""Promotion writes the challenger's spec into params.yaml and leaves the rest of the file as its author wrote it."""

import difflib
from pathlib import Path

import pytest

from flows.promotion import promote, with_surrogate
from surrogate_core import GPSurrogate
from tasks.errors import BadInput
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


def test_there_must_be_a_tuning_to_promote(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"tuning\.json: expected the report of a tuning, got No such file"):
        promote(tmp_path)


def test_a_champion_that_was_not_beaten_stays(tmp_path: Path) -> None:
    (tmp_path / "data" / "reports").mkdir(parents=True)
    (tmp_path / "data" / "reports" / "tuning.json").write_text('{"challenger_is_better": false}')
    assert promote(tmp_path) == "the champion stays: no challenger is better"
