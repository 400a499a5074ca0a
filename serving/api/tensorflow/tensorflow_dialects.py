"""Predict, classify and regress of TensorFlow Serving: one dialect for each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from starlette.responses import Response

from serving.api.answers import encode_under
from serving.api.bodies import Headers
from serving.api.dialect import Call, Refusal, Written
from serving.api.tensorflow import tensorflow_refusals
from serving.api.tensorflow.rows_body import RowsRequest, parse_examples, parse_predict, rows_for
from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.signature import Method, ModelKind, Signature
from serving.plane.active_reference import Asked
from serving.plane.prediction import Answer, PredictRequest
from serving.rows.batch import Prediction

SCORES: tuple[Method, ...] = ("predict_proba", "predict_log_proba")


class _Dialect:
    """The common part of the three dialects."""

    takes_compressed = True

    def __init__(self, max_depth: int) -> None:
        self._max_depth = max_depth

    def check_head(self, headers: Headers) -> None:
        """Allow any content type: all bodies are JSON, and curl by itself names a form."""

    def target(self, params: Mapping[str, str]) -> tuple[str | None, Asked]:
        """Return the model, and the version by its name or a label."""
        return params.get("model"), tensorflow_refusals.version_of(params)

    def refuse(self, refusal: Refusal) -> Response:
        """Answer ``{"error": "..."}``."""
        return tensorflow_refusals.refuse(refusal)


class Predict(_Dialect):
    """``:predict``, by rows (``instances`` -> ``predictions``) or by columns (``inputs`` -> ``outputs``)."""

    def parse(self, params: Mapping[str, str], headers: Headers, raw: bytes) -> Call:  # noqa: ARG002
        """Read a body; raises NotJson or InvalidInput."""
        body = parse_predict(raw, self._max_depth)
        key = "outputs" if body.is_columnar else "predictions"
        return Call(lambda signature: _request(signature, body, body.method), lambda answer, _: _plain(key, answer))


class Classify(_Dialect):
    """``:classify``: a label and a score for each class of each example."""

    def parse(self, params: Mapping[str, str], headers: Headers, raw: bytes) -> Call:  # noqa: ARG002
        """Read a body; raises NotJson or InvalidInput."""
        body = parse_examples(raw, self._max_depth)
        return Call(lambda signature: _request(signature, body, _scoring_method(signature, body)), _classes)


class Regress(_Dialect):
    """``:regress``: a number for each example."""

    def parse(self, params: Mapping[str, str], headers: Headers, raw: bytes) -> Call:  # noqa: ARG002
        """Read a body; raises NotJson or InvalidInput."""
        body = parse_examples(raw, self._max_depth)
        return Call(lambda signature: _request(signature, body, _number_method(signature, body)), _numbers)


def _request(signature: Signature, body: RowsRequest, method: str | None) -> PredictRequest:
    return PredictRequest(rows_for(signature, body), method)


def _plain(key: str, answer: Answer) -> Written:
    return Written(encode_under(key, answer.prediction))


def _scoring_method(signature: Signature, body: RowsRequest) -> str:
    """Return the method that gives a score for each class; raises InvalidInput if there is none."""
    offered = [method for method in SCORES if method in signature.methods]
    if not offered or signature.classes is None or len(signature.classes) != 1:
        raise InvalidInput("this model has no scores of classes to give: ask for :predict")
    if body.method is not None and body.method not in SCORES:
        raise InvalidInput(f"{body.method[:50]!r} gives no scores of classes; this model offers {', '.join(offered)}")
    return body.method or offered[0]


def _number_method(signature: Signature, body: RowsRequest) -> str | None:
    """Return the method that gives one number for each row; raises InvalidInput if there is none."""
    method = body.method or signature.default_method
    is_number = method in ("predict", "score_samples") and signature.kind is not ModelKind.CLASSIFIER
    if not is_number or signature.outputs != 1:
        raise InvalidInput("this model does not answer one number for each row: ask for :predict or :classify")
    return method


def _classes(answer: Answer, signature: Signature) -> Written:
    scores = answer.prediction.tensors[0]
    assert signature.classes is not None  # `_scoring_method` has looked
    labels = [str(label) for label in signature.classes[0]]
    listed = scores.tolist() if isinstance(scores, np.ndarray) else scores
    if any(type(row) is not list or len(row) != len(labels) for row in listed):
        raise ModelFailed(f"the model did not give a score for each of its {len(labels)} classes")
    results = [[list(pair) for pair in zip(labels, row, strict=True)] for row in listed]
    return Written(encode_under("results", Prediction((results,))))


def _numbers(answer: Answer, _: Signature) -> Written:
    values = answer.prediction.tensors[0]
    if isinstance(values, np.ndarray):
        if values.ndim > 1 and values.shape[1:] != (1,):
            raise ModelFailed("the model gave more than a number for a row")
        values = values.reshape(-1)
    return Written(encode_under("results", Prediction((values,))))
