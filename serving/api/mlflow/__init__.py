"""MLflow's scoring server, which is also a SageMaker endpoint: ``/invocations`` and its probes.

After ``mlflow.pyfunc.scoring_server`` of MLflow 3. Errors are ``{"error_code": "...", "message": "..."}``. Two things
differ: a body that does not fit the model is 400 and not 500, and no traceback is ever sent.
"""

from __future__ import annotations

from serving.api.mlflow.mlflow_dialect import Scoring
from serving.api.mlflow.mlflow_docs import COMPONENTS, add_routes
from serving.api.mlflow.probes import router

__all__ = ["COMPONENTS", "Scoring", "add_routes", "router"]
