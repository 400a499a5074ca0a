"""An application of your own that answers with every core: one version at one instant, in all of its processes.

    SERVING_SERVER__WORKERS=3 uvicorn shared_app:app --workers 3

`server.workers` above 1 says that the processes of this application share one control, and how many there usually are.
"""

import os
from typing import Annotated, Any

from fastapi import Depends, FastAPI

import serving

app = FastAPI(lifespan=serving.lifespan())

price = serving.model("price")


@app.post("/price")
async def ask(rows: list[list[float]], model: Annotated[serving.Model, Depends(price)]) -> dict[str, Any]:
    return {"prices": await model.predict(rows), "version": model.version, "process": os.getpid()}


@app.get("/processes")
async def list_processes() -> list[dict[str, Any]]:
    """Say how all processes of this application are, whichever of them is asked."""
    workers = await app.state.services.counts.list_workers()
    return [{"process": one.pid, "state": one.state, "requests": one.requests} for one in workers]
