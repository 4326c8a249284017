"""Cache keys: a stage's result is known by all it depends on. The same list, less the machine, is in dvc.yaml."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.machine import machine
from tasks.settings import canonical
from tasks.workspace import Workspace


@dataclass(frozen=True)
class Stage:
    """What a stage reads and writes: paths below the outputs' folder, dotted paths into params.yaml."""

    name: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    calls_black_box: bool = False


DATASET, MODEL, VALIDATION = "data/dataset.parquet", "data/model", "data/reports/validation.json"
EVALUATIONS, OPTIMIZED, OPTIMUM = "data/evaluations.parquet", "data/optimized_model", "data/reports/optimum.json"
TUNED_EVALUATIONS, CHAMPION = "data/tuning_evaluations.parquet", "data/champion"
TUNING, RECOMMENDATION = "data/reports/tuning.json", "data/reports/recommendation.json"

STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("collect", (), ("problem", "collect"), (DATASET,), calls_black_box=True),
        Stage("fit", (DATASET,), ("fit",), (MODEL,)),
        Stage("validate", (DATASET, MODEL), ("problem", "validate", "gates"), (VALIDATION,), calls_black_box=True),
        Stage(
            "optimize",
            (DATASET, MODEL, VALIDATION),
            ("problem", "optimize", "gates.on_fail"),
            (EVALUATIONS, OPTIMIZED, OPTIMUM),
            calls_black_box=True,
        ),
        Stage(
            "tune",
            (DATASET, MODEL, VALIDATION, EVALUATIONS, OPTIMUM),
            ("problem", "validate", "gates", "optimize", "tune"),
            (TUNED_EVALUATIONS, CHAMPION, TUNING, RECOMMENDATION),
            calls_black_box=True,
        ),
    )
}


def stage_key(stage: Stage, workspace: Workspace) -> str:
    """Digest of all that the stage's result depends on.

    Raises:
        BadInput: a file that it reads, or the black box's source, is not there.
    """
    files = {path: hashlib.sha256(content).hexdigest() for path, content in workspace.read(stage.deps).items()}
    parts = {
        "stage": stage.name,
        "files": files,
        "params": workspace.settings.subset(stage.params),
        "code": workspace.inputs.code,
        "machine": machine(),
        "black_box": workspace.black_box if stage.calls_black_box else None,
    }
    return hashlib.sha256(canonical(parts)).hexdigest()
