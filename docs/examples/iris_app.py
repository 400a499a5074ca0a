"""A FastAPI application of your own that answers with models from a store.

    uvicorn iris_app:app

The store, like everything else, comes from settings.toml and SERVING_* variables. Drop `iris/1.joblib` into it, later
`iris/2.joblib`: the handler answers with the newest valid version, and each request keeps the version it began with.
"""

from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel

import serving

app = FastAPI(lifespan=serving.lifespan())

iris = serving.model("iris")  # keep it: it is also the key for app.dependency_overrides in tests


class Flower(BaseModel):
    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


class Species(BaseModel):
    species: str
    version: str


NAMES = ["setosa", "versicolor", "virginica"]


@app.post("/species")
async def species(flower: Flower, model: Annotated[serving.Model, Depends(iris)]) -> Species:
    row = [flower.sepal_length, flower.sepal_width, flower.petal_length, flower.petal_width]
    (label,) = await model.predict([row])
    return Species(species=NAMES[label], version=model.version)
