"""Keeping `dvc status` clean: what `surrogate run` wrote is committed under the stages of dvc.yaml, meanwhile."""

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

from ruamel.yaml import YAML

from tasks.keys import STAGES
from tasks.workspace import Workspace


class DvcCommitter:
    """Commits stages as they succeed, several in one command where they have piled up; used in a `with`.

    Nothing is committed within DVC, for foreign settings, outside a DVC repository, or once a file that the run started
    from has changed: then what is on disk is not what dvc.yaml describes.
    """

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.trouble: list[str] = []  # what went wrong, a line each; complete once the `with` has been left
        self.why_not = self._why_not()
        self._thread = threading.Thread(target=self._work, name="dvc-commit")

    def __enter__(self) -> "DvcCommitter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()

    def add(self, stage: str) -> None:
        """Commits a stage whose files have been written."""
        if not self.why_not:
            self._queue.put(stage)

    def _why_not(self) -> str:
        if os.environ.get("DVC_STAGE"):
            return "run by DVC, which commits itself"
        if self._workspace.out != self._workspace.root:
            return "other settings than those of params.yaml: not versioned"
        if not (self._workspace.root / ".dvc").is_dir() or not (self._workspace.root / "dvc.yaml").is_file():
            return "no DVC repository here: nothing is versioned (`dvc init` makes one)"
        return ""

    def _work(self) -> None:
        stages: list[str] = []
        ended = False
        while not ended:
            waiting = [self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get())
            ended = None in waiting
            stages = [stage for stage in waiting if stage is not None]
            if stages:
                self._commit(stages)

    def _commit(self, stages: list[str]) -> None:
        if edited := self._workspace.edited(pipeline=True):
            self.trouble.append(f"{', '.join(stages)}: not committed to DVC, for {edited} was edited meanwhile")
            return
        unsaid = {stage: _unsaid(self._workspace, stage) or _unseen(self._workspace, stage) for stage in stages}
        for stage in filter(unsaid.__getitem__, stages):
            self.trouble.append(f"{stage}: not committed to DVC, which {unsaid[stage]}")
        if not (stages := [stage for stage in stages if not unsaid[stage]]):
            return
        # Without --no-relink DVC puts each file anew in its place, while the next stage may be reading it.
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "commit", "--force", "--no-relink", "--quiet", *stages],
            cwd=self._workspace.root,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C lets it end
        )
        if done.returncode:
            line = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            self.trouble.append(f"dvc commit {' '.join(stages)} failed: {line}")


def _unsaid(workspace: Workspace, stage: str) -> str:
    """The settings that a stage reads and params.yaml leaves to their defaults, which DVC knows nothing of."""
    content = YAML(typ="safe", pure=True).load((workspace.root / "params.yaml").read_text(encoding="utf-8"))

    def is_said(path: str) -> bool:
        value = content
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                return False
            value = value[key]
        return True

    unsaid = [path for path in STAGES[stage].params if not is_said(path)]
    return f"needs {', '.join(unsaid)} in params.yaml" if unsaid else ""


def _unseen(workspace: Workspace, stage: str) -> str:
    """The sources of the black box and its constraints that dvc.yaml does not name."""
    if not STAGES[stage].calls_black_box:
        return ""
    root, problem = workspace.root.resolve(), workspace.settings.problem
    seen = [(root / path).resolve() for path in (problem.source, problem.data) if path]
    pipeline = (root / "dvc.yaml").read_text(encoding="utf-8")
    unseen = [
        os.path.relpath(source, root)
        for source in map(Path.resolve, problem.sources(root))
        if not any(source.is_relative_to(one) for one in seen)
    ]
    unseen = [path for path in unseen if path not in pipeline]
    said = f"does not see {', '.join(unseen)}: keep it in problem.source, or add it to the deps of dvc.yaml"
    return said if unseen else ""
