"""MLflow's registered model, whose versions are what `data/champion` has been."""

import hashlib
from importlib.metadata import version
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, RunStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature, infer_signature
from mlflow.models.model import ModelInfo

import surrogate_core
from surrogate_core.surrogates.files import load_surrogate
from tasks.inputs import code_digest
from tasks.keys import CHAMPION, DATASET
from tasks.outputs import read_dataset
from tasks.workspace import Workspace

MODEL_NAME = "surrogate"
REQUIREMENTS = (
    "jax",
    "jaxlib",
    "numpy",
    "optax",
    "orjson",
    "pandas",
    "pyarrow",
    "safetensors",
    "scikit-learn",
    "scipy",
)


def publish_model(client: MlflowClient, run_id: str, workspace: Workspace) -> ModelVersion:
    """The version that holds `data/champion`, made unless there is one, as an output of the run.

    A schedule would make one an hour of what does not change. The alias @champion is moved by --promote alone.
    """
    requirements = [f"{name}=={version(name)}" for name in REQUIREMENTS]
    content = _digest(workspace, requirements)
    for made in client.search_model_versions(f"name = '{MODEL_NAME}' and tags.content = '{content}'"):
        client.log_outputs(run_id, [LoggedModelOutput(made.tags["model_id"], step=0)])
        return made
    logged = _log_model(run_id, workspace, requirements)
    client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
    if not client.search_registered_models(f"name = '{MODEL_NAME}'"):
        client.create_registered_model(MODEL_NAME)
    tags = {"content": content, "model_id": logged.model_id}  # MLflow's own stores forget the latter
    return client.create_model_version(MODEL_NAME, logged.model_uri, run_id, tags=tags, model_id=logged.model_id)


def _digest(workspace: Workspace, requirements: list[str]) -> str:
    """Of all that a logged model holds: the saved surrogate, the code that loads it, and the libraries."""
    digest = hashlib.sha256(repr((code_digest(workspace.root), requirements)).encode())
    for path in sorted((workspace.out / CHAMPION).iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _log_model(run_id: str, workspace: Workspace, requirements: list[str]) -> ModelInfo:
    """Logs `data/champion`, by code and files."""
    folder = workspace.out / CHAMPION
    fitted = load_surrogate(folder)
    rows = read_dataset(workspace, DATASET)
    example = pd.DataFrame([rows.space.params(x) for x in rows.X[:3]])
    told = pd.DataFrame({"prediction": fitted.predict(rows.X[:3]), "uncertainty": fitted.uncertainty(rows.X[:3])})
    signature: ModelSignature = infer_signature(example, told)
    with mlflow.start_run(run_id=run_id):
        return mlflow.pyfunc.log_model(
            name="champion",
            python_model=str(Path(__file__).with_name("model.py")),
            artifacts={"surrogate": str(folder)},
            code_paths=[str(Path(next(iter(surrogate_core.__path__))))],
            signature=signature,
            input_example=example,
            pip_requirements=requirements,
        )
