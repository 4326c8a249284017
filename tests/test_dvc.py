"""What `surrogate run` commits to DVC."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from workspace_fixture import PARAMS

from flows.dvc import DvcCommitter, _unseen
from tasks.keys import STAGES
from tasks.settings import load_settings
from tasks.workspace import Workspace


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("stages: {}", {stage: STAGES[stage].calls_black_box for stage in STAGES}),
        ("stages: {collect: {deps: [limits.py]}}", dict.fromkeys(STAGES, False)),
    ],
    ids=["not named", "named"],
)
def test_a_file_of_constraints_that_dvc_does_not_see_is_told(
    pipeline: str, expected: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "limits.py").write_text("def gap(x, y): return x - y\n")
    (tmp_path / "dvc.yaml").write_text(pipeline)
    (tmp_path / "params.yaml").write_text(PARAMS.replace("problem:\n", "problem:\n  constraints: [limits:gap]\n", 1))
    workspace = Workspace.of(tmp_path, load_settings(tmp_path / "params.yaml"), foreign=False)
    said = {stage: _unseen(workspace, stage) for stage in STAGES}
    assert {stage: bool(line) for stage, line in said.items()} == expected
    assert {line for line in said.values() if line} <= {
        "does not see limits.py: keep it in problem.source, or add it to the deps of dvc.yaml"
    }


@pytest.mark.parametrize(
    ("params", "trouble"),
    [
        (PARAMS, []),
        (
            PARAMS.replace("  on_fail: warn\n", ""),
            ["optimize: not committed to DVC, which needs gates.on_fail in params.yaml"],
        ),
    ],
    ids=["all said", "one left to its default"],
)
def test_a_stage_whose_settings_dvc_would_miss_is_told_and_the_others_are_committed(
    params: str, trouble: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(params)
    committed: list[str] = []

    def run(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        committed.extend(word for word in command if word in STAGES)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("flows.dvc.subprocess.run", run)
    workspace = Workspace.of(tmp_path, load_settings(tmp_path / "params.yaml"), foreign=False)
    with DvcCommitter(workspace) as committer:
        for stage in STAGES:
            committer.add(stage)
    assert committer.trouble == trouble
    assert committed == [stage for stage in STAGES if not trouble or stage != "optimize"]
