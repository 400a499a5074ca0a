"""Predictions over REST: ``POST /v2/models/{model}[/versions/{version}]/infer``, JSON with or without binary tensors.

Answers have blobs behind their JSON for outputs that ask for ``binary_data``, or for all with the request's
``binary_data_output``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
from starlette.responses import Response

from serving.api.answers import PIECE_VALUES
from serving.api.bodies import CURL_DEFAULT, Headers, refuse_media
from serving.api.dialect import Call, NamedInPath, Refusal, Written
from serving.api.oip.infer_body import HEADER_LENGTH, Infer, read
from serving.api.oip.oip_refusals import error_of
from serving.api.oip.specs import tensors_of
from serving.api.oip.tensors import ReceivedTensor, to_blob
from serving.api.request_log import RequestIds
from serving.domain.errors import ModelFailed
from serving.domain.signature import Signature
from serving.plane.prediction import Answer

BINARY = b"application/octet-stream"

_ALSO_TAKEN = (BINARY, CURL_DEFAULT.encode())
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_NO_HEADERS: Headers = {}


class OpenInference(NamedInPath):
    """The dialect of the Open Inference Protocol over REST."""

    takes_compressed = True

    def __init__(self, ids: RequestIds, max_depth: int) -> None:
        self._ids = ids
        self._max_depth = max_depth

    def check_head(self, headers: Headers) -> None:
        """Allow JSON under several content types: some clients name bytes, and curl by itself names a form."""
        if headers.get(b"content-type") not in _ALSO_TAKEN:
            refuse_media(headers)

    def parse(self, params: Mapping[str, str], headers: Headers, raw: bytes) -> Call:  # noqa: ARG002
        """Read a body; raises NotJson or InvalidInput."""
        infer = read(headers, raw, self._max_depth)
        write = partial(_write, infer, infer.id or self._ids.of(_NO_HEADERS).decode())
        return Call(infer.request, write)

    def refuse(self, refusal: Refusal) -> Response:
        """Answer ``{"error": "..."}``."""
        return error_of(refusal)


def _write(infer: Infer, identity: str, answer: Answer, signature: Signature) -> Written:
    """Return the body of an answer; blocks, the longer the more values it has. Raises ModelFailed."""
    outputs = []
    blobs = []
    for tensor in tensors_of(answer, signature):
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if tensor.name in infer.binary or (infer.is_binary and not infer.methods):
            blob = to_blob(tensor)
            blobs.append(blob)
            output["parameters"] = {"binary_data_size": len(blob)}
        else:
            output["data"] = _values(tensor)
        outputs.append(output)
    document = {"model_name": answer.model, "model_version": answer.version, "id": identity, "outputs": outputs}
    try:
        head = orjson.dumps(document, option=_OPTIONS)
    except orjson.JSONEncodeError as error:
        raise ModelFailed(f"the answer has no form in JSON: {error}") from None
    if not blobs:
        return Written(head)
    return Written(b"".join([head, *blobs]), BINARY, ((HEADER_LENGTH, b"%d" % len(head)),))


def _values(tensor: ReceivedTensor) -> Any:
    """Return values that orjson writes as one array; many are written in pieces, so that other threads get the lock.

    Numbers that are not finite become null.
    """
    values = tensor.values
    if len(values) <= PIECE_VALUES:
        return values
    starts = range(0, len(values), PIECE_VALUES)
    pieces = [orjson.dumps(values[start : start + PIECE_VALUES], option=_OPTIONS)[1:-1] for start in starts]
    return orjson.Fragment(b"[" + b",".join(pieces) + b"]")
