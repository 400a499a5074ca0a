"""What most people write: FastAPI, a pydantic body, a ``def`` endpoint, the model in ``app.state``.

``MODEL`` in the environment names the file. ``POST /refresh`` loads another file in a thread, as such services do.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import joblib
import numpy as np
import pandas as pd
from fastapi import FastAPI, Request
from pydantic import BaseModel


class Instances(BaseModel):
    """Rows of numbers."""

    instances: list[list[float]]


class Mixed(BaseModel):
    """Rows of numbers and strings."""

    instances: list[list[float | str]]


class File(BaseModel):
    """A model file to be loaded."""

    path: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model before the first request."""
    app.state.model = joblib.load(os.environ["MODEL"])
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(body: Instances, request: Request) -> dict[str, Any]:
    """Answer with labels."""
    return {"predictions": request.app.state.model.predict(np.array(body.instances)).tolist()}


@app.post("/predict-mixed")
def predict_mixed(body: Mixed, request: Request) -> dict[str, Any]:
    """Answer with labels for rows of a data frame."""
    model = request.app.state.model
    return {"predictions": model.predict(pd.DataFrame(body.instances, columns=model.feature_names_in_)).tolist()}


@app.post("/refresh")
def refresh(body: File, request: Request) -> dict[str, Any]:
    """Load another model beside the one that answers."""
    request.app.state.other = joblib.load(body.path)
    return {"loaded": True}
