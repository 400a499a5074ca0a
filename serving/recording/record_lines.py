"""Encodes answered requests as lines of JSON: one line for each row and method.

    {"time": "2026-11-30T14:08:52.123456+00:00", "request_id": "a1", "model": "iris", "version": "3",
     "method": "predict", "rows": 1, "seconds": 0.0004, "row": 0, "features": {"width": 1.5}, "answer": "setosa"}

`row` counts from 0 in the request, which had `rows`. A field that is left out is absent, and its name is in `left_out`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import orjson

from serving.domain.signature import Container, Method, Signature
from serving.recording.answered_request import AnsweredRequest
from serving.rows.batch import Batch, Tensor

MOST_RECORD_BYTES = 1 << 20  # of the rows of one request; the first row is always written ...
MOST_LINE_BYTES = 16 << 20  # ... unless it is longer than this
MOST_LAYOUTS = 1000
PAUSE_EVERY_SECONDS, PAUSE_SECONDS = 5e-4, 1e-4

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
_NOTHING: set[str] = set()  # where nothing is to be left out


class EncodedRows(NamedTuple):
    """The lines of one method's answers, each with its end."""

    method: Method
    lines: list[bytes]


class RecordTooLarge(Exception):
    """A row whose line would be longer than `MOST_LINE_BYTES`."""


class _Layout(NamedTuple):
    """How the rows of one signature are written. `names` is None if they are no object of feature names."""

    signature: Signature
    names: tuple[str, ...] | None
    places: tuple[int, ...]
    left_out: tuple[str, ...]


class RecordEncoder:
    """Encodes without the values of the fields in `leave_out`: features, methods, and keys of objects. One thread.

    `pause` is called now and then: an encoder that never waits would keep the interpreter lock from the event loop.
    """

    def __init__(self, leave_out: Collection[str] = (), pause: Callable[[float], None] = time.sleep) -> None:
        self._leave_out = frozenset(leave_out)
        self._pause = pause
        self._paused_at = 0.0
        self._layouts: dict[tuple[str, str], _Layout] = {}
        self._second, self._second_text = -1, b""

    def encode(self, request: AnsweredRequest) -> list[EncodedRows]:
        """Return the lines of all methods. Raises RecordTooLarge, or TypeError for values that JSON does not have."""
        layout = self._find_layout(request)
        return [
            EncodedRows(method, self._encode_method(request, layout, method, tensors))
            for method, tensors in request.outputs
        ]

    def _encode_method(
        self, request: AnsweredRequest, layout: _Layout, method: Method, tensors: tuple[Tensor, ...]
    ) -> list[bytes]:
        start = self._encode_start(request, method)
        lines: list[bytes] = []
        nbytes = 0
        has_answers = method not in self._leave_out
        rows = zip(_iterate_rows(request.batch), _iterate_answers(tensors), strict=True)
        for place, (row, answer) in enumerate(rows):
            left_out = {*layout.left_out} if self._leave_out else _NOTHING
            document = {"row": place, "features": self._lay_out(layout, row, left_out)}
            if has_answers:
                document["answer"] = self._prune(answer, left_out)
            else:
                left_out.add(method)
            if left_out:
                document["left_out"] = sorted(left_out)
            line = start + orjson.dumps(document, _plain, _OPTIONS)[1:]
            nbytes += len(line)
            if nbytes > MOST_RECORD_BYTES and (lines or nbytes > MOST_LINE_BYTES):
                break
            lines.append(line)
            self._pause_now_and_then()
        if not lines:
            raise RecordTooLarge(f"a row of {nbytes} bytes")
        return lines

    def _encode_start(self, request: AnsweredRequest, method: Method) -> bytes:
        """Return the fields that all rows of a request have, and the comma after them."""
        identity = request.request_id
        names = orjson.dumps(
            {
                "request_id": identity.decode("latin-1") if isinstance(identity, bytes) else identity,
                "model": request.model,
                "version": request.version,
                "method": method,
            }
        )
        second = int(request.at)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        micros = int((request.at - second) * 1e6)
        end = b'"rows":%d,"seconds":%.6f,' % (request.rows, request.seconds)
        return b'{"time":"%b.%06d+00:00",%b,%b' % (self._second_text, micros, names[1:-1], end)

    def _lay_out(self, layout: _Layout, row: list[Any], left_out: set[str]) -> Any:
        signature = layout.signature
        if signature.container is Container.OBJECTS and layout.places:
            return self._prune(row[0], left_out)
        cells = [row[place] for place in layout.places] if len(layout.places) != len(row) else row
        if self._leave_out:
            cells = [self._prune(cell, left_out) for cell in cells]
        if layout.names is not None:
            return dict(zip(layout.names, cells, strict=True))
        whole: list[Any] = [None] * len(row)
        for place, cell in zip(layout.places, cells, strict=True):
            whole[place] = cell
        return whole

    def _prune(self, value: Any, left_out: set[str]) -> Any:
        """Return a plain value without the keys to leave out, at any depth; those that it had go to `left_out`."""
        if not self._leave_out:
            return value
        if isinstance(value, dict):
            found = self._leave_out & value.keys()
            left_out |= found
            return {key: self._prune(each, left_out) for key, each in value.items() if key not in found}
        if isinstance(value, list):
            return [self._prune(each, left_out) for each in value]
        return value

    def _find_layout(self, request: AnsweredRequest) -> _Layout:
        key = request.model, request.version
        layout = self._layouts.get(key)
        if layout is None or layout.signature is not request.signature:
            if len(self._layouts) >= MOST_LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[key] = _make_layout(request.signature, self._leave_out)
        return layout

    def _pause_now_and_then(self) -> None:
        now = time.perf_counter()
        if now - self._paused_at > PAUSE_EVERY_SECONDS:
            self._pause(PAUSE_SECONDS)
            self._paused_at = time.perf_counter()


def _make_layout(signature: Signature, leave_out: frozenset[str]) -> _Layout:
    """Features that the model does not use are not written: their values are not read either."""
    features = signature.features
    kept = [place for place, one in enumerate(features) if one.is_used and one.name not in leave_out]
    names = tuple(features[place].name for place in kept)
    has_names = len({one.name for one in features}) == len(features)
    left_out = sorted({one.name for one in features if one.name in leave_out})
    return _Layout(signature, names if has_names else None, tuple(kept), tuple(left_out))


def _iterate_rows(batch: Batch) -> Iterator[list[Any]]:
    if batch.matrix is not None:
        for row in batch.matrix:
            yield row.tolist()
        return
    columns = [column.tolist() if isinstance(column, np.ndarray) else column for column in batch.columns or ()]
    for place in range(batch.rows):
        yield [column[place] for column in columns]


def _iterate_answers(tensors: tuple[Tensor, ...]) -> Iterator[Any]:
    """Yield the answer to each row, as answers in JSON have it: of several tensors, a list of theirs."""
    if len(tensors) == 1:
        only = tensors[0]
        yield from (each.tolist() if isinstance(each, np.ndarray | np.generic) else each for each in only)
        return
    plain = [tensor.tolist() if isinstance(tensor, np.ndarray) else tensor for tensor in tensors]
    for row in zip(*plain, strict=True):
        yield list(row)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"values of type {type(value).__name__}")
