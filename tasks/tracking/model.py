"""The logged model, as code: MLflow runs this file to load it. Its artifact is a saved surrogate's folder."""

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from surrogate_core.surrogates.files import load_surrogate


class SurrogateModel(PythonModel):
    """Predicts mean and standard deviation of the minimized objective at points in the problem's units."""

    def load_context(self, context: PythonModelContext) -> None:
        self.fitted = load_surrogate(context.artifacts["surrogate"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        X = model_input[list(self.fitted.space.names)].to_numpy(dtype=float)
        return pd.DataFrame({"prediction": self.fitted.predict(X), "uncertainty": self.fitted.uncertainty(X)})


mlflow.models.set_model(SurrogateModel())
