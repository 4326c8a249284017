"""Cache keys: a stage's result is known by all it depends on. The same list, less the machine, is in dvc.yaml."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import surrogate_core
import tasks
from surrogate_core.problems.black_box import identity
from tasks.errors import BadInput
from tasks.machine import machine
from tasks.settings import Settings, canonical
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

_GATES = ("gates.min_r2", "gates.min_coverage_95")

STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("collect", (), ("problem", "collect"), (DATASET,), calls_black_box=True),
        Stage("fit", (DATASET,), ("fit",), (MODEL,)),
        Stage("validate", (DATASET, MODEL), ("validate", *_GATES), (VALIDATION,)),
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
            ("problem", "validate", "optimize", "tune"),
            (TUNED_EVALUATIONS, CHAMPION, TUNING, RECOMMENDATION),
            calls_black_box=True,
        ),
    )
}


def stage_key(stage: Stage, workspace: Workspace) -> str:
    """Digest of all that the stage's result depends on: its files must be there already."""
    files = {path: hashlib.sha256(content).hexdigest() for path, content in workspace.read(stage.deps).items()}
    parts = {
        "stage": stage.name,
        "files": files,
        "params": workspace.settings.subset(stage.params),
        "code": code_digest(workspace.root),
        "machine": machine(),
        "black_box": black_box_identity(workspace.root, workspace.settings) if stage.calls_black_box else None,
    }
    return hashlib.sha256(canonical(parts)).hexdigest()


def black_box_identity(root: Path, settings: Settings) -> str:
    """Digest of `problem.source` and `problem.version`.

    Raises:
        BadInput: the source is not there.
    """
    try:
        return identity(root / settings.problem.source, settings.problem.version)
    except OSError as error:
        source = settings.problem.source
        message = f"problem.source: expected a file or folder below {root}, got {source!r} ({error.strerror})"
        raise BadInput(message) from error


def code_digest(root: Path) -> str:
    """Digest of the sources of `surrogate_core` and `tasks`, and of the libraries' versions."""
    digest = hashlib.sha256()
    for package in (surrogate_core, tasks):
        folder = Path(next(iter(package.__path__)))
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder.parent).as_posix().encode() + b"\0" + path.read_bytes())
    lock = root / "requirements.lock"
    if lock.is_file():
        digest.update(lock.read_bytes())
    else:  # a workspace beside an installed package: what numerics came with it
        libraries = ("jax", "jaxlib", "numpy", "optax", "optuna", "scikit-learn", "scipy")
        digest.update(repr([(name, version(name)) for name in libraries]).encode())
    return digest.hexdigest()
