"""The stages as Prefect tasks: what is transient is tried again, what a user must mend is not."""

from pathlib import Path

import pytest
from prefect import flow

from flows import pipeline
from tasks.caching import ResultStorage, call_cached
from tasks.errors import StageFailed
from tasks.files import StageFiles


@pytest.mark.slow
@pytest.mark.xdist_group("crash")  # whose worker has a Prefect server
@pytest.mark.parametrize(
    ("error", "n_calls"),
    [
        (OSError("the disk was full"), 2),
        (EOFError("a worker was lost"), 2),
        (StageFailed("all failed"), 1),
        (KeyError(1), 1),
    ],
)
def test_only_what_may_pass_is_tried_again(
    prefect_harness: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, n_calls: int
) -> None:
    calls = []

    def body(workspace: object, key: str, progress: object) -> StageFiles:
        calls.append(key)
        if len(calls) < 2:
            raise error
        return {"data/out": b"done"}

    monkeypatch.setattr(pipeline, "RETRY_SECONDS", 0)
    task = pipeline._task("fit", body)

    @flow(validate_parameters=False)
    def run() -> tuple[StageFiles, bool]:
        return call_cached(
            task, storage=ResultStorage(basepath=str(tmp_path)), key="0" * 64, workspace=None, progress=None
        )

    if n_calls == 1:
        with pytest.raises(type(error)):
            run()
    else:
        assert run() == ({"data/out": b"done"}, False)
    assert len(calls) == n_calls
