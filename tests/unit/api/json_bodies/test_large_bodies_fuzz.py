"""Bodies of odd parts, from seeds: a large one is answered like the same one small, or refused like it.

Each is read twice, as a small body and as a large one that is cut everywhere. Where it is refused the fault that is
told may be another one: a large body is read in pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

from serving.api import predict_body
from serving.api.json_bodies import brackets, cutter, long_array, number_reader
from serving.api.mlflow import scoring_body
from serving.api.oip import infer_body
from serving.api.tensorflow import rows_body
from serving.domain.errors import RequestRefused
from serving.domain.signature import Dtype, Feature, Signature
from serving.rows.conversion import convert_rows

NUMBERS = ["-0", "-0.0", "1e5", "1E+2", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9007199254740993", "5e-324"]
NUMBERS += ["18446744073709551616", "123456789012345678901234567890", "01", "1.", "+1", ".5", "1e", "--1", "-0e1"]
TEXTS = [
    '"x"',
    '""',
    '"a,b],[c"',
    '"\\u0061"',
    '"\\ud800"',
    '"\\ud83d\\ude00"',
    '"\\"],"',
    '"\\\\"',
    '"é"',
    '"\n"',
    '"]]"',
]
TEXTS += ['"\\x"', '"instances\\": [[1,2],"']
WORDS = ["null", "true", "false", "True", "nul", "[]", "{}", "[[1]]", "[" * 20 + "]" * 20]
BLANKS = [" ", "\n\t", "\r", " " * 70, "\x0b", "\u00a0", "/**/", "\x00", "\ufeff"]
MISTAKES = [b"", b",", b"]", b"[", b'"', b"}", b"\\", b"1", b"NaN", b"\xff", b"\x0b", b":"]
SIGNATURES = [
    Signature(
        features=(Feature(name="a", dtype=dtype, nullable=nullable), Feature(name="b", nullable=True)),
        methods=("predict",),
    )
    for dtype in (Dtype.NUMBER, Dtype.STRING, Dtype.BOOL)
    for nullable in (False, True)
]
BODIES = [80, pytest.param(5000, marks=pytest.mark.soak)]


class Writer:
    """Writes bodies of all protocols; one part in some is odd."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.oddity, self.special = 0.0, ""

    def write(self, write_document: Callable[[Writer], str]) -> bytes:
        """Return a body."""
        self.oddity = self.random.choice((0, 0, 0, 0.02))
        self.special = self.random.choice(NUMBERS + TEXTS + WORDS)
        raw = (self.blank() + write_document(self) + self.blank()).encode()
        if self.random.random() < 0.1:
            at = self.random.randrange(len(raw))
            raw = raw[:at] + self.random.choice(MISTAKES) + raw[at + self.random.choice((0, 1)) :]
        return raw

    def is_odd(self) -> bool:
        return self.random.random() < self.oddity

    def blank(self) -> str:
        return self.random.choice(BLANKS[: None if self.is_odd() else 3]) if self.random.random() < 0.1 else ""

    def cell(self) -> str:
        """Return a number, or perhaps what is special about this body."""
        return self.special if self.random.random() < 0.1 else self.random.choice(("7", "-1.5", "0.1", "1e-7", "12345"))

    def array(self, parts: list[str]) -> str:
        return "[" + self.blank() + ",".join(part + self.blank() for part in parts) + "]"

    def members(self, pairs: dict[str, str]) -> str:
        names = self.random.sample([*pairs], len(pairs))
        return "{" + ",".join(f'{self.blank()}"{name}"{self.blank()}:{pairs[name]}' for name in names) + "}"

    def first(self) -> str:
        """Return the first value of a row: all rows of a body have the same, mostly."""
        return self.random.choice(("1", '"x"', "true", "null", self.special))

    def rows(self) -> str:
        count, first = self.random.choice((0, 1, 3, 9, 30)), self.first()
        if self.random.random() < 0.6:
            return self.array(
                [self.array([self.first() if self.is_odd() else first, self.cell()]) for _ in range(count)]
            )
        return self.objects(count, first)

    def objects(self, count: int, first: str) -> str:
        return self.array([self.members({"a": first, "b": self.cell()}) for _ in range(count)])

    def columns(self) -> str:
        count, first = self.random.choice((1, 3, 9, 30)), self.first()
        return self.members(
            {"a": self.array([first] * count), "b": self.array([self.cell() for _ in range(count + self.is_odd())])}
        )

    def tensors(self) -> str:
        """Return two inputs, mostly of one length and of types that fit their values."""
        count, first = self.random.choice((1, 3, 9, 30)), self.first()
        datatype = {'"x"': "BYTES", "true": "BOOL"}.get(first, "FP64")
        cells = [self.cell() for _ in range(count + self.is_odd())]
        return self.array([self.tensor("a", datatype, [first] * count), self.tensor("b", "FP64", cells)])

    def tensor(self, name: str, datatype: str, values: list[str]) -> str:
        shape = self.random.choice(([len(values)], [len(values), 1]))
        if len(shape) > 1 and self.random.random() < 0.5:
            values = [self.array([each]) for each in values]
        if self.random.random() < 0.1:
            datatype = self.random.choice(("FP32", "INT64", "INT8", "BYTES"))
        parts = {"name": f'"{name}"', "shape": str(shape), "datatype": f'"{datatype}"', "data": self.array(values)}
        return self.members(parts)


def as_written(signature: Signature, rows: Any) -> str:
    """Return the batch that rows become, so that equal texts are equal bits."""
    batch = convert_rows(signature, rows)
    columns: Any = batch.columns if batch.matrix is None else batch.matrix.T
    return repr([(column.dtype, column.tolist()) if isinstance(column, np.ndarray) else column for column in columns])


def read_scoring(signature: Signature, raw: bytes) -> Any:
    return scoring_body.rows_for(signature, scoring_body.parse(raw, 16))


def write_scoring(writer: Writer) -> str:
    form = writer.random.choice(("dataframe_split", "dataframe_records", "instances", "inputs"))
    if form == "dataframe_split":
        return writer.members({form: writer.members({"columns": '["a","b"]', "data": writer.rows()})})
    if form == "inputs":
        return writer.members({form: writer.columns()})
    return writer.members({form: writer.rows()})


PROTOCOLS: dict[str, tuple[Callable[[Writer], str], Callable[[Signature, bytes], Any]]] = {
    "native": (
        lambda writer: writer.members({"instances": writer.rows()}),
        lambda _, raw: predict_body.parse(raw).rows,
    ),
    "MLflow": (write_scoring, read_scoring),
    "TensorFlow": (
        lambda writer: writer.members({"inputs": writer.random.choice((writer.rows, writer.columns))()}),
        lambda signature, raw: rows_body.rows_for(signature, rows_body.parse_predict(raw, 16)),
    ),
    "TensorFlow's examples": (
        lambda writer: writer.members({"examples": writer.objects(9, writer.first()), "context": "{}"}),
        lambda signature, raw: rows_body.rows_for(signature, rows_body.parse_examples(raw, 16)),
    ),
    "Open Inference": (
        lambda writer: writer.members({"inputs": writer.tensors()}),
        lambda signature, raw: infer_body.read({}, raw, 16).request(signature).rows,
    ),
}


@pytest.fixture(params=["simdjson", "no simdjson"])
def _cut_everywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no simdjson":
        monkeypatch.setattr(number_reader, "_parser_type", lambda: None)
    monkeypatch.setattr(long_array, "PIECE_BYTES", 8)
    monkeypatch.setattr(brackets, "WINDOW_BYTES", 13)
    monkeypatch.setattr(brackets, "YIELD_SECONDS", 0)
    layouts = [predict_body._LAYOUT, scoring_body._LAYOUT, rows_body._ROWS, rows_body._EXAMPLES, infer_body._LAYOUT]
    for layout in layouts:
        monkeypatch.setattr(layout, "levels", tuple((depth, 8 if depth == 2 else 2) for depth, _ in layout.levels))


@pytest.mark.usefixtures("_cut_everywhere")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("bodies", BODIES)
def test_a_large_body_is_answered_or_refused_like_the_same_one_small(protocol: str, bodies: int) -> None:
    write, read = PROTOCOLS[protocol]
    writer = Writer(len(protocol))
    kinds: Counter[bool] = Counter()

    def outcome(signature: Signature, raw: bytes, large_bytes: int) -> str | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cutter, "LARGE_BYTES", large_bytes)
            patch.setattr(predict_body, "LARGE_BYTES", large_bytes)
            try:
                return as_written(signature, read(signature, raw))
            except RequestRefused:
                return None

    for _ in range(bodies):
        signature, raw = writer.random.choice(SIGNATURES), writer.write(write)
        small = outcome(signature, raw, len(raw))
        assert outcome(signature, raw, -1) == small, raw
        kinds[small is None] += 1
    assert min(kinds.values()) > bodies / 20, "most are neither answered nor refused"
    assert len(kinds) == 2
