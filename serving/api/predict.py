"""The native protocol: ``POST .../predict``, JSON in and out, errors as problems."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI
from starlette.responses import Response

from serving.api import predict_docs, problems
from serving.api.answers import encode
from serving.api.bodies import Headers, refuse_media
from serving.api.dialect import Call, Refusal, Written
from serving.api.endpoint import Endpoint
from serving.api.pieces import LARGE_BYTES, parse_large
from serving.api.predict_body import parse
from serving.api.routes import add_prediction
from serving.domain.signature import Signature
from serving.prediction import Answer


class Native:
    """The dialect of ``docs/http.md``."""

    takes_compressed = False

    def check_head(self, headers: Headers) -> None:
        """Take plain JSON."""
        refuse_media(headers)

    def parse(self, params: Mapping[str, str], headers: Headers, raw: bytes, max_depth: int) -> Call:  # noqa: ARG002
        """Read a body, a large one piece by piece."""
        request = parse(raw, max_depth) if len(raw) <= LARGE_BYTES else parse_large(raw, max_depth)
        return Call(params.get("model"), params.get("version"), lambda _: request, _write)

    def refuse(self, refusal: Refusal) -> Response:
        """Answer with a problem."""
        return problems.problem_of(refusal)


def _write(answer: Answer, _: Signature) -> Written:
    return Written(encode(answer))


def add_routes(app: FastAPI, endpoint: Endpoint) -> None:
    """Add the prediction routes, with their documentation."""
    for operation in predict_docs.OPERATIONS:
        add_prediction(
            app,
            endpoint,
            operation.path,
            name=operation.name,
            operation_id=operation.name,
            summary=operation.summary,
            description=operation.description,
            tags=["predict"],
            responses=predict_docs.responses(),
            openapi_extra=predict_docs.details(operation.path),
        )
