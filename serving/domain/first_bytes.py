"""Recognises the format of a model file by its first bytes, not by its name. Pure: opens no file.

It recognises only what can hardly be anything else: JSON and text that are no models, such as metrics, configurations
and lists of requirements, lie beside models under the same suffixes.
"""

from __future__ import annotations

import re

from serving.domain.version import Format

HEAD_BYTES = 512

_PICKLE = 0x80
_PICKLE_PROTOCOLS = range(2, 6)
_ONNX_IR_VERSION_FIELD = 0x08
_ONNX_IR_VERSIONS = range(1, 64)
_ONNX_NEXT_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"  # of ModelProto, in the order of their numbers
_UBJSON_LENGTHS = b"iUIlL"  # of the first name, after a brace
_XGBOOST_KEYS = (b"learner", b"version")
_UBJSON_KEY_BYTES = 24
# by the first key of "learner": files of settings and a booster's own configuration have others
_XGBOOST_JSON = re.compile(
    rb'\s*\{\s*(?:"version"\s*:\s*\[[\d,\s]*\]\s*,\s*)?"learner"\s*:\s*\{\s*'
    rb'"(?:attributes|feature_names|feature_types|gradient_booster|learner_model_param)"\s*:\s*[\[{]'
)
_LIGHTGBM = re.compile(rb"tree\r?\nversion=v\d")


def format_of(head: bytes) -> Format | None:
    """Return the format of a file that begins with `head`, its first `HEAD_BYTES`; None when it is unknown.

    A pickle may hold anything: it is meant to be a model only if its name says so, or if it is the only file.
    """
    if is_xgboost(head):
        return Format.XGBOOST
    if _LIGHTGBM.match(head):
        return Format.LIGHTGBM
    if is_onnx(head) and head[2:3] in {bytes([field]) for field in _ONNX_NEXT_FIELDS}:
        return Format.ONNX
    return Format.PICKLE if is_pickle(head) else None


def is_xgboost(head: bytes) -> bool:
    """Say whether a file begins as XGBoost's JSON or UBJSON does."""
    if head[:1] == b"{" and head[1:2] and head[1] in _UBJSON_LENGTHS:
        return any(key in head[:_UBJSON_KEY_BYTES] for key in _XGBOOST_KEYS)
    return _XGBOOST_JSON.match(head) is not None


def is_onnx(head: bytes) -> bool:
    """Say whether a file begins with the version of ONNX's format."""
    return len(head) > 1 and head[0] == _ONNX_IR_VERSION_FIELD and head[1] in _ONNX_IR_VERSIONS


def is_pickle(head: bytes) -> bool:
    """Say whether a file begins as pickles of Python 3, and joblib's uncompressed files, do."""
    return len(head) > 1 and head[0] == _PICKLE and head[1] in _PICKLE_PROTOCOLS


def is_other_json(head: bytes) -> bool:
    """Say whether a file begins as JSON that holds no model."""
    return head.lstrip()[:1] in (b"{", b"[") and not is_xgboost(head)
