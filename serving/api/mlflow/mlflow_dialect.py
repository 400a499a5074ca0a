"""``POST /invocations``: MLflow's scoring protocol, which SageMaker also expects from a container."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from serving.api.answers import encode_under
from serving.api.bodies import Headers
from serving.api.dialect import Call, NamedInPath, Refusal, Written
from serving.api.formats import CSV, RowFormat, pace, reader_of
from serving.api.formats.negotiation import form_of_answer, form_of_body
from serving.api.mlflow import mlflow_refusals
from serving.api.mlflow.scoring_body import MOST_EXTRA_COLUMNS, parse, places_of, rows_for, table_for
from serving.domain.errors import UnsupportedMedia
from serving.domain.signature import Signature
from serving.plane.prediction import Answer, PredictRequest

_USUAL = (None, b"application/json", b"text/csv", b"application/x-npy")


class Scoring(NamedInPath):
    """The dialect of MLflow's scoring server; also with rows and answers as CSV, NumPy arrays and Arrow streams.

    A form that is read row by row is read no further than `max_rows`.
    """

    takes_compressed = True

    def __init__(self, max_rows: int, max_depth: int) -> None:
        self._max_rows = max_rows
        self._max_depth = max_depth

    def check_head(self, headers: Headers) -> None:
        """Raise UnsupportedMedia for other content types, and for parameters other than ``charset=utf-8``."""
        content_type = headers.get(b"content-type")
        if content_type not in _USUAL:
            _refuse_parameters(content_type)
        form_of_body(headers)
        form_of_answer(headers)

    def parse(self, params: Mapping[str, str], headers: Headers, raw: bytes) -> Call:  # noqa: ARG002
        """Read a body; JSON here, other forms when the signature is known."""
        form = form_of_body(headers)
        wanted = form_of_answer(headers)

        def write(answer: Answer, signature: Signature) -> Written:
            return _written(wanted, answer, signature)

        reads_slowly, writes_slowly = pace(raw, form, wanted)
        if form is not None:
            return Call(
                lambda signature: _rows_in(form, raw, signature, self._max_rows), write, reads_slowly, writes_slowly
            )
        body = parse(raw, self._max_depth)
        return Call(
            lambda signature: PredictRequest(rows_for(signature, body), body.method),
            write,
            reads_slowly,
            writes_slowly,
        )

    def refuse(self, refusal: Refusal) -> Response:
        """Answer with an error code and a message."""
        return mlflow_refusals.refuse(refusal)


def _rows_in(form: RowFormat, raw: bytes, signature: Signature, max_rows: int) -> PredictRequest:
    read = reader_of(form, max_rows, MOST_EXTRA_COLUMNS)
    table = read(raw, signature)
    if form is CSV and table.names is not None and places_of(signature, table.names) is None:
        # the reader treats unknown columns as text: without names it finds columns by position, as is meant here
        table = read(raw.partition(b"\n")[2], signature)
    return PredictRequest(table_for(signature, table))


def _written(form: RowFormat | None, answer: Answer, signature: Signature) -> Written:
    if form is None:
        return Written(encode_under("predictions", answer.prediction))
    return Written(form.write(answer, signature), form.media_type.encode())


def _refuse_parameters(content_type: bytes | None) -> None:
    _, *parameters = (content_type or b"").decode("latin-1").split(";")
    for parameter in parameters:
        name, _, value = (part.strip().lower() for part in parameter.partition("="))
        if name == "charset" and value.strip('"') != "utf-8":
            raise UnsupportedMedia("The scoring server only supports UTF-8; send it as 'charset=utf-8'")
        if name and name != "charset":
            raise UnsupportedMedia(f"Unrecognized content type parameters: {name[:60]!r}; only charset=utf-8 is one")
