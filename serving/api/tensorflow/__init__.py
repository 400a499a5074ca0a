"""TensorFlow Serving's REST interface, version 1: ``/v1/models/{model}[/versions/{version}|/labels/{label}]``.

After its ``api_rest.md``. Errors are ``{"error": "..."}``; rows that do not fit the model are 400. Content types are
ignored, because its clients send the one that curl sends by itself. Labels are `stable` (the active version),
`previous` (the version that was active before it and is still loaded) and the names of versions.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.api.dialect import Dialect
from serving.api.tensorflow.model_status import router
from serving.api.tensorflow.tensorflow_dialects import Classify, Predict, Regress
from serving.api.tensorflow.tensorflow_docs import COMPONENTS, add_routes

__all__ = ["COMPONENTS", "VERBS", "add_routes", "router"]

VERBS: dict[str, Callable[[int], Dialect]] = {"predict": Predict, "classify": Classify, "regress": Regress}
