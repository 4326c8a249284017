"""What `surrogate run` commits to DVC."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from workspace_fixture import PARAMS

from flows.dvc import DvcCommitter
from tasks.keys import STAGES
from tasks.settings import load_settings
from tasks.workspace import Workspace


@pytest.mark.parametrize(
    ("params", "trouble"),
    [
        (PARAMS, []),
        (
            PARAMS.replace("  min_r2: 0.5\n", ""),
            ["validate: not committed to DVC, which needs gates.min_r2 in params.yaml"],
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
    assert committed == [stage for stage in STAGES if not trouble or stage != "validate"]
