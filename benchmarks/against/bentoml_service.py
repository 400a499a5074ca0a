"""BentoML as its documentation shows it: ``MODEL=... bentoml serve bentoml_service:Service --port PORT``."""

import os

import bentoml
import joblib
import numpy as np


@bentoml.service(workers=1)
class Service:
    """Rows in, labels out."""

    def __init__(self) -> None:
        """Load the model in the worker."""
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api
    def predict(self, instances: np.ndarray) -> np.ndarray:
        """Return labels."""
        return self.model.predict(instances)
