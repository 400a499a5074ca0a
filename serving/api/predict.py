"""The native protocol: ``POST .../predict``, rows in and answers out in JSON or another form, errors as problems."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

from fastapi import FastAPI
from starlette.responses import Response

from serving.api import predict_docs, problems
from serving.api.answers import encode
from serving.api.bodies import Headers
from serving.api.dialect import QUERY, Call, NamedInPath, Refusal, Written
from serving.api.formats import RowFormat, pace, reader_of
from serving.api.formats.negotiation import form_of_answer, form_of_body
from serving.api.json_bodies.long_array import LongArray
from serving.api.paths import NATIVE
from serving.api.predict_body import parse
from serving.api.routes import add_prediction
from serving.domain.errors import InvalidInput
from serving.domain.signature import Signature
from serving.plane.prediction import Answer, PredictRequest

MOST_FIELDS = 16


class Native(NamedInPath):
    """The dialect of ``docs/http.md``. A form that is read row by row is read no further than `max_rows`."""

    takes_compressed = False

    def __init__(self, max_rows: int, max_depth: int) -> None:
        self._max_rows = max_rows
        self._max_depth = max_depth

    def check_head(self, headers: Headers) -> None:
        """Raise an error unless body and answer are JSON or have a known format."""
        form_of_body(headers)
        form_of_answer(headers)

    def parse(self, params: Mapping[str, str], headers: Headers, raw: bytes) -> Call:
        """Read a JSON body, a large one piece by piece; a body in a format is read when the signature is known."""
        source, target = form_of_body(headers), form_of_answer(headers)
        method = _method_of(params[QUERY]) if QUERY in params else None
        write = _write if target is None else lambda answer, signature: _written(target, answer, signature)
        reads_slowly, writes_slowly = pace(raw, source, target)
        if source is not None:
            read = reader_of(source, self._max_rows)
            return Call(lambda its: PredictRequest(read(raw, its), method), write, reads_slowly, writes_slowly)
        request = parse(raw, self._max_depth)
        if method is not None:
            request = request._replace(method=_only(method, request.method))
        return Call(lambda its: _of_width(request, its), write, reads_slowly, writes_slowly)

    def refuse(self, refusal: Refusal) -> Response:
        """Answer with a problem."""
        return problems.problem_of(refusal)


def _of_width(request: PredictRequest, signature: Signature) -> PredictRequest:
    rows = request.rows
    return request._replace(rows=rows.of_width(len(signature.features))) if isinstance(rows, LongArray) else request


def _write(answer: Answer, _: Signature) -> Written:
    return Written(encode(answer))


def _written(form: RowFormat, answer: Answer, signature: Signature) -> Written:
    return Written(form.write(answer, signature), form.media_type.encode())


def _method_of(query: str) -> str | None:
    """Return the method in a query string, None if there is none; other fields are ignored."""
    try:
        found = parse_qs(query, keep_blank_values=True, max_num_fields=MOST_FIELDS).get("method", [])
    except ValueError:
        raise InvalidInput(f"more than {MOST_FIELDS} fields in the query string; 'method' is the only one") from None
    if len(found) > 1:
        raise InvalidInput("'method' is in the query string more than once; send one")
    return found[0] if found else None


def _only(asked: str, in_body: str | None) -> str:
    """Return the method of a request that may name it twice."""
    if in_body not in (None, asked):
        raise InvalidInput("the query string and the body ask for different methods; name it once")
    return asked


def add_routes(app: FastAPI) -> None:
    """Add the prediction routes, with their documentation."""
    for operation in predict_docs.OPERATIONS:
        add_prediction(
            app,
            NATIVE,
            operation.path,
            operation.name,
            summary=operation.summary,
            description=operation.description,
            tags=["predict"],
            responses=predict_docs.responses(),
            openapi_extra=predict_docs.details(operation.path),
        )
