"""The one place from which values that hosts share with the server take their data model: pydantic's.

In another environment than the server's, pydantic may be absent, or another version for the models there. So `enter`
puts `serving.host.substitutes.plain_models` in the place of this module before anything imports it.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

__all__ = ["BaseModel", "ConfigDict", "Field", "JsonValue", "ValidationError"]
