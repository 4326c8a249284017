"""The logged model, as code: MLflow runs this file to load it. Its artifact is a saved surrogate's folder."""

from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from surrogate_core.surrogates.files import load_surrogate


class SurrogateModel(PythonModel):
    """Predicts mean and standard deviation of the minimized objective at designs, a column a variable."""

    def load_context(self, context: PythonModelContext) -> None:
        self.fitted = load_surrogate(context.artifacts["surrogate"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        space = self.fitted.space
        rows = model_input[list(space.names)].to_dict("records")
        X = np.array([space.point(row) for row in rows]).reshape(-1, space.n_dims)
        return pd.DataFrame({"prediction": self.fitted.predict(X), "uncertainty": self.fitted.uncertainty(X)})


mlflow.models.set_model(SurrogateModel())
