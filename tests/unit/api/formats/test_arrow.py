"""Arrow streams: any layout of plain columns, and none that grows."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.formats import ARROW, arrow, arrow_sizes, pace
from serving.api.formats.negotiation import form_of_body
from serving.domain.errors import BodyTooLarge, InvalidInput, Malformed, NotAcceptable, UnsupportedMedia
from serving.domain.signature import Dtype, Feature, Signature
from serving.plane.prediction import Answer
from serving.rows.batch import Prediction, Tensor
from serving.rows.tables import table_to_batch
from tests.fakes import MIXED, NUMBERS

pa = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.ipc")

ONE = Signature(features=(Feature(name="x", dtype=Dtype.STRING, nullable=True),), methods=("predict",))
ANYTHING = Signature(features=(Feature(name="x", dtype=Dtype.ANY, nullable=True),), methods=("predict",))


def stream_of(*tables: Any, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, tables[0].schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as stream:
        for table in tables:
            stream.write_table(table)
    return sink.getvalue()


def numbers(rows: int = 3) -> Any:
    return pa.table({f"x{place}": np.arange(float(rows)) + place for place in (3, 0, 2, 1)})


def opened(tensors: tuple[Tensor, ...], method: Any, signature: Signature = NUMBERS) -> Any:
    answer = Answer("iris", "3", method, len(tensors[0]), Prediction(tensors), False)
    return pa.ipc.open_stream(arrow.write(answer, signature)).read_all()


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_columns_come_by_name_in_any_order_and_any_number_of_batches(compression: str | None) -> None:
    raw = stream_of(numbers(), numbers(2), compression=compression)
    matrix = table_to_batch(NUMBERS, arrow.read(raw, NUMBERS)).matrix
    assert matrix is not None
    assert matrix.tolist() == [[row + place for place in range(4)] for row in (0, 1, 2, 0, 1)]


def test_nulls_are_missing_values_and_dictionaries_are_text() -> None:
    rows = pa.table(
        {
            "is_new": pa.array([True, None, False]),
            "age": pa.array([40, None, 3], pa.int16()),
            "town": pa.array(["Ulm", "Bonn", "Ulm"]).dictionary_encode(),
        }
    )
    columns = table_to_batch(MIXED, arrow.read(stream_of(rows, rows), MIXED)).columns
    assert columns is not None
    assert np.array_equal(np.asarray(columns[0]), [40, np.nan, 3] * 2, equal_nan=True)
    assert columns[1] == ["Ulm", "Bonn", "Ulm"] * 2
    assert columns[2] == [True, None, False] * 2


def test_a_null_in_a_dictionary_is_a_missing_value() -> None:
    rows = pa.table({"x": pa.array(["a", None, "b", "a"]).dictionary_encode()})
    assert arrow.read(stream_of(rows), ONE).columns == (["a", None, "b", "a"],)


def test_whole_numbers_stay_whole_where_anything_is_taken() -> None:
    rows = pa.table({"x": pa.array([(1 << 62) + 1, None])})
    assert arrow.read(stream_of(rows), ANYTHING).columns == ([(1 << 62) + 1, None],)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, None]),
        pa.array([[1], [2]]),
        pa.array([{"a": 1}]),
        pa.array([b"bytes"]),
        pa.array(["view"], pa.string_view()),
        pa.array([0], pa.time32("s")),
        pa.array([0], pa.timestamp("s")).dictionary_encode(),
        pa.array([1], pa.decimal128(5)),
        pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())),
    ],
)
def test_columns_nobody_takes_are_named(column: Any) -> None:
    with pytest.raises(InvalidInput, match='column the string "x" is of the type'):
        arrow.read(stream_of(pa.table({"x": column})), ONE)


def test_no_columns_and_too_many_are_refused_before_they_are_read() -> None:
    for table in (pa.table({}), pa.table({"x": ["a"], "y": ["a"]})):
        with pytest.raises(InvalidInput, match="the model takes 1: one for each feature"):
            arrow.read(stream_of(table), ONE)


def test_a_stream_that_grows_is_refused_before_it_has() -> None:
    raw = stream_of(pa.table({"x": pa.array(np.zeros(9 << 20))}), compression="zstd")
    assert len(raw) < 1 << 20
    usual = pa.default_memory_pool()
    own = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(own)
    try:
        with pytest.raises(BodyTooLarge, match="has more than 67108864 bytes when it is read"):
            arrow.read(raw, ANYTHING)
    finally:
        pa.set_memory_pool(usual)
    assert own.max_memory() == 0


def test_a_buffer_is_believed_to_be_as_large_as_it_says_and_not_allocated() -> None:
    size = (1 << 20) * 8
    raw = stream_of(pa.table({"x": pa.array(np.zeros(1 << 20))}), compression="lz4")
    assert raw.count(size.to_bytes(8, "little")) == 1
    with pytest.raises(BodyTooLarge):
        arrow.read(raw.replace(size.to_bytes(8, "little"), (1 << 40).to_bytes(8, "little")), ANYTHING)


def test_many_batches_that_grow_together_are_refused() -> None:
    piece = pa.table({"x": pa.array(np.zeros(1 << 20))})
    with pytest.raises(BodyTooLarge):
        arrow.read(stream_of(*[piece] * 9, compression="lz4"), ANYTHING)


def test_a_dictionary_that_stands_for_too_much_text_is_refused() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1000, np.int8)), pa.array(["x" * 100_000]))
    with pytest.raises(BodyTooLarge, match="stands for more text"):
        arrow.read(stream_of(pa.table({"x": column})), ONE)


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"ARROW1\0\0", b"\xff" * 64, stream_of(numbers())[:-60]])
def test_what_is_no_stream_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        arrow.read(raw, NUMBERS)


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_changed_stream_is_read_or_refused_and_nothing_else(compression: str | None) -> None:
    mixed = pa.table({"age": [1.5], "town": pa.array(["Ulm"]).dictionary_encode(), "is_new": [True]})
    sound = stream_of(mixed, compression=compression)

    @settings(max_examples=150)
    @given(place=st.integers(0, len(sound) - 1), byte=st.integers(0, 255))
    def change(place: int, byte: int) -> None:
        raw = bytearray(sound)
        raw[place] = byte
        arrow.reads_slowly(bytes(raw))
        try:
            table_to_batch(MIXED, arrow.read(bytes(raw), MIXED))
        except (Malformed, InvalidInput, BodyTooLarge):
            return

    change()


def test_an_answer_has_named_columns_and_says_who_gave_it() -> None:
    table = opened((np.array([[0.1, 0.2, 0.7]]),), "predict_proba")
    assert table.to_pydict() == {"0": [0.1], "1": [0.2], "2": [0.7]}
    assert table.schema.metadata == {b"model": b"iris", b"version": b"3", b"method": b"predict_proba"}
    assert opened((["yes", "no"],), "predict").to_pydict() == {"predict": ["yes", "no"]}


@pytest.mark.parametrize("values", [["yes", 1], [1 << 64]])
def test_values_of_several_kinds_and_large_integers_have_no_column(values: list[Any]) -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        opened((values,), "predict")


def test_without_pyarrow_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.api.formats.arrow.find_spec", lambda name: None)
    arrow.why_not.cache_clear()
    try:
        with pytest.raises(UnsupportedMedia, match=r"pip install 'serving\[arrow\]'"):
            form_of_body({b"content-type": ARROW.media_type.upper().encode()})
    finally:
        arrow.why_not.cache_clear()


def test_only_a_short_stream_that_cannot_grow_is_for_the_event_loop() -> None:
    text = pa.table({"x": ["Ulm", "Bonn"]})
    arrow.read(stream_of(numbers()), NUMBERS)
    assert not arrow.reads_slowly(stream_of(numbers(), numbers(20)))
    assert not arrow.reads_slowly(stream_of(text))
    assert arrow.reads_slowly(stream_of(numbers(1_000)))
    assert arrow.reads_slowly(stream_of(numbers(1_000), compression="zstd"))
    assert arrow.reads_slowly(stream_of(numbers(), compression="lz4"))
    assert arrow.reads_slowly(stream_of(pa.table({"x": text["x"].dictionary_encode()})))
    assert arrow.reads_slowly(b"nonsense")
    assert arrow.reads_slowly(stream_of(numbers())[:-60])


def test_pyarrow_is_not_imported_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = stream_of(numbers())
    monkeypatch.setattr(arrow, "is_imported", lambda: False)
    assert pace(sound, ARROW, ARROW) == (True, True)


def test_the_limit_follows_the_body() -> None:
    assert arrow_sizes.most_bytes(b"") == 64 << 20
    assert arrow_sizes.most_bytes(bytes(40 << 20)) == 80 << 20
