"""Refusals in TensorFlow Serving's form, and the version that a path of its interface names."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from starlette.responses import Response

from serving.api.dialect import Refusal
from serving.api.problems import line_of
from serving.plane.active_reference import Asked, Label, Role

STABLE = "stable"
PREVIOUS = "previous"

# TensorFlow Serving has neither 415 nor 422 for a body: INVALID_ARGUMENT is 400 there.
_STATUSES = {422: 400, 415: 400}


def refuse(refusal: Refusal) -> Response:
    """Answer ``{"error": "..."}`` with the status that TensorFlow Serving would use."""
    body = orjson.dumps({"error": line_of(refusal.detail)})
    status = _STATUSES.get(refusal.status, refusal.status)
    return Response(body, status, dict(refusal.headers), "application/json")


def version_of(params: Mapping[str, str]) -> Asked:
    """Return the version in the parameters of a path, by name or by label; None for the active one.

    A label that no operator has set is a part of the reference, or else the name of a version.
    """
    label = params.get("label")
    if label is None:
        return params.get("version")
    return Label(label, {STABLE: Role.ACTIVE, PREVIOUS: Role.PREVIOUS}.get(label, label))
