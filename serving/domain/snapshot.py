"""The base of everything that the status shows to the outside."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Snapshot(BaseModel):
    """Base of the values in the status: frozen, and JSON by its field names."""

    model_config = ConfigDict(frozen=True)
