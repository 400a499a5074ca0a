"""Objects of pandas and pyarrow in a pickle that say what is not so: sizes, offsets, codes, dtypes, and other names."""

from __future__ import annotations

import struct
from typing import Any

from tests.hostile.opcodes import Fragment, array, built, call, dtype, instance, named

_NEW_INDEX, _INDEX = named("pandas.core.indexes.base:_new_Index"), named("pandas:Index")
_BACKED = named("pandas._libs.arrays:__pyx_unpickle_NDArrayBacked")
_CHECKSUM = 82904607
TEXTS = array(dtype("O"), (2,), ["age", "income"])
CODES = array(dtype("i1"), (2,), bytes([0, 1]))
NUMBERS = array(dtype("i8"), (2,), struct.pack("<2q", 1, 2))
SYSTEM = named("os:system")


def index(data: Any, **more: Any) -> Fragment:
    """Push an Index of this data."""
    return call(_NEW_INDEX, _INDEX, {"data": data, "name": None, **more})


def arrow(
    offsets: bytes | None, content: Any, length: Any = 1, start: Any = 0, bits: Any = None, **other: Any
) -> Fragment:
    """Push an array of texts as pyarrow writes it."""
    buffer = named("pyarrow.lib:py_buffer")
    kind = call(named("pyarrow.lib:type_for_alias"), other.get("kind", "large_string"))
    buffers = [
        None if each is None else call(buffer, Fragment(call(named("builtins:bytearray"), each)))
        for each in (bits, offsets, content)
    ]
    parts = (kind, length, 0, start, other.get("buffers", buffers), other.get("children", []), other.get("words"))
    return call(named("pyarrow.lib:_restore_array"), parts)


def texts(array_of_arrow: Any) -> Fragment:
    """Push an array of texts of pandas."""
    kind = call(named("pandas:StringDtype"), "pyarrow", float("nan"))
    return built(
        instance(named("pandas.arrays:ArrowStringArray")), {"_pa_array": array_of_arrow, "_dtype": kind, "_cache": {}}
    )


def backed(kind: str, *state: Any) -> Fragment:
    """Push an array of pandas that is backed by one of NumPy."""
    return built(call(_BACKED, named(kind), _CHECKSUM, None), tuple(state))


def categorical(codes: Any, categories: Any = TEXTS) -> Fragment:
    """Push categories by their codes."""
    kind = built(instance(named("pandas:CategoricalDtype")), {"categories": index(categories), "ordered": False})
    return backed("pandas:Categorical", kind, codes)


def masked(values: Any, mask: Any) -> Fragment:
    """Push numbers of which some are missing."""
    return built(instance(named("pandas.arrays:IntegerArray")), {"_data": values, "_mask": mask, "_dtype": None})


def offsets(*places: int) -> bytes:
    """Return the offsets of a large_string."""
    return struct.pack(f"<{len(places)}q", *places)


def whole_ones() -> dict[str, Fragment]:
    """Return what is so, from which the lies differ: each is read."""
    return {
        "an index": index(TEXTS),
        "texts": texts(arrow(offsets(0, 1), b"a")),
        "some of the texts": texts(arrow(offsets(0, 1, 3), b"abc", start=1)),
        "categories": categorical(CODES),
        "numbers": masked(NUMBERS, array(dtype("b1"), (2,), bytes([0, 1]))),
        "times": backed("pandas.arrays:DatetimeArray", _times(), array(_times(), (1,), bytes(8))),
        "a range": call(_NEW_INDEX, named("pandas:RangeIndex"), {"name": None, "start": 0, "stop": 3, "step": 1}),
    }


def _times() -> Fragment:
    return built(dtype("M8"), (4, "<", None, None, None, -1, -1, 0, ({}, (b"ns", 1, 1, 1))))


def lies() -> dict[str, Fragment]:
    """Return each lie: every one is to be refused."""
    return {**_of_arrow(), **_of_pandas(), **_other_names()}


def _of_arrow() -> dict[str, Fragment]:
    far = 1 << 40
    return {
        "offsets beyond the bytes": texts(arrow(offsets(0, far), b"a")),
        "offsets just beyond the bytes": texts(arrow(offsets(0, 2), b"a")),
        "offsets below the bytes": texts(arrow(offsets(-8, 1), b"a")),
        "offsets that go back": texts(arrow(offsets(0, 1, 0, 1), b"a", length=3)),
        "fewer offsets than texts": texts(arrow(offsets(0, 1), b"a", length=2)),
        "texts without end": texts(arrow(offsets(0, 1), b"a", length=far)),
        "a length below zero": texts(arrow(offsets(0, 1), b"a", length=-1)),
        "a length that is no number": texts(arrow(offsets(0, 1), b"a", length="1")),
        "a start beyond the offsets": texts(arrow(offsets(0, 1), b"a", start=far)),
        "a start below zero": texts(arrow(offsets(0, 1, 1), b"a", start=-1)),
        "fewer bits than texts": texts(arrow(offsets(*range(11)), b"abcdefghij", length=10, bits=b"\1")),
        "no offsets": texts(arrow(None, b"a")),
        "no bytes": texts(arrow(offsets(0, 1), None)),
        "bytes that are no text": texts(arrow(offsets(0, 1), b"\xff")),
        "no buffers": texts(arrow(b"", b"", buffers=[])),
        "a type of numbers": texts(arrow(offsets(0, 1), b"a", kind="int64")),
        "an extension type": texts(arrow(offsets(0, 1), b"a", kind="arrow.py_extension_type")),
        "children": texts(arrow(offsets(0, 1), b"a", children=[arrow(offsets(0, 1), b"a")])),
        "words": texts(arrow(offsets(0, 1), b"a", words=arrow(offsets(0, 1), b"a"))),
        "a buffer at an address": call(named("pyarrow.lib:py_buffer"), 4096),
        "a buffer of an array": call(named("pyarrow.lib:py_buffer"), NUMBERS),
        "texts of objects": texts(array(dtype("O"), (1,), [{}])),
    }


def _of_pandas() -> dict[str, Fragment]:
    wide = array(dtype("i8"), (1, 2), struct.pack("<2q", 1, 2))
    far = call(_NEW_INDEX, named("pandas:RangeIndex"), {"name": None, "start": 0, "stop": 1 << 62, "step": 1})
    return {
        "codes beyond the categories": categorical(array(dtype("i1"), (2,), bytes([0, 2]))),
        "codes below the categories": categorical(array(dtype("i1"), (2,), bytes([0, 0xFE]))),
        "codes that are fractions": categorical(array(dtype("f8"), (1,), bytes(8))),
        "codes that are objects": categorical(TEXTS),
        "codes of two dimensions": categorical(wide),
        "categories that are codes of nothing": backed(
            "pandas:Categorical", call(named("pandas:CategoricalDtype")), CODES
        ),
        "categories that are estimators": categorical(CODES, array(dtype("O"), (2,), [_scaler(), _scaler()])),
        "an index of estimators": index(array(dtype("O"), (1,), [_scaler()])),
        "an index of lists": index(array(dtype("O"), (1,), [[1]])),
        "an index of two dimensions": index(wide),
        "an index of a list": index(["age"]),
        "an index of structures": index(array(dtype("V8"), (1,), bytes(8))),
        "an index with a frequency": index(NUMBERS, freq=_scaler()),
        "an index with other parts": index(NUMBERS, fastpath=True),
        "an index of nothing": call(_NEW_INDEX, _INDEX, {}),
        "an index of an estimator's class": call(
            _NEW_INDEX, named("sklearn.preprocessing._data:StandardScaler"), {"data": TEXTS}
        ),
        "an index by a function": call(_NEW_INDEX, named("pandas.core.indexes.base:_new_Index"), {"data": TEXTS}),
        "a range without end": far,
        "a range of fractions": call(_NEW_INDEX, named("pandas:RangeIndex"), {"start": 0.5, "stop": 2, "step": 1}),
        "a range that goes nowhere": call(_NEW_INDEX, named("pandas:RangeIndex"), {"start": 0, "stop": 2, "step": 0}),
        "levels without codes": call(_NEW_INDEX, named("pandas:MultiIndex"), {"levels": [TEXTS], "codes": []}),
        "levels with codes beyond": call(
            _NEW_INDEX,
            named("pandas:MultiIndex"),
            {"levels": [TEXTS], "codes": [array(dtype("i1"), (1,), b"\5")], "names": [None]},
        ),
        "a mask of another size": masked(NUMBERS, array(dtype("b1"), (1,), b"\0")),
        "a mask of numbers": masked(NUMBERS, NUMBERS),
        "numbers that are texts": masked(TEXTS, array(dtype("b1"), (2,), bytes(2))),
        "times that are texts": backed("pandas.arrays:DatetimeArray", _times(), TEXTS),
        "texts that are numbers": backed("pandas.arrays:StringArray", None, array(dtype("O"), (1,), [1])),
        "a state of two arrays": backed("pandas.arrays:StringArray", TEXTS, TEXTS),
        "a time in a zone": call(named("pandas._libs.tslibs.timestamps:_unpickle_timestamp"), 0, None, _scaler(), 10),
        "a time of no unit": call(named("pandas._libs.tslibs.timestamps:_unpickle_timestamp"), 0, None, None, 99),
        "a series of nothing": built(instance(named("pandas:Series")), {}),
        "a series of a block of estimators": built(instance(named("pandas:Series")), {"_mgr": _scaler()}),
        "a block of two": built(
            instance(named("pandas.core.internals.managers:SingleBlockManager")),
            ([], [], [], {"0.14.1": {"axes": [], "blocks": [{"values": TEXTS}, {"values": TEXTS}]}}),
        ),
    }


def _other_names() -> dict[str, Fragment]:
    """What may be read is not called, made or set in another way, and nothing else of pandas is known."""
    moment = call(named("pandas._libs.tslibs.timestamps:_unpickle_timestamp"), 0, None, None, 10)
    return {
        "a class of an index that is called": call(_INDEX, TEXTS),
        "a series that is called": call(named("pandas:Series"), TEXTS),
        "an index that is made": instance(_INDEX),
        "a function that is made": instance(_NEW_INDEX),
        "a series that is made of something": instance(named("pandas:Series"), TEXTS),
        "a state of a class": built(_INDEX, {"a": 1}),
        "a state of what is missing": built(named("pandas:NA"), {"a": 1}),
        "a state of a moment": built(moment, (0, None, None)),
        "a state of an index": built(index(TEXTS), {"a": 1}),
        "a dtype of a function": call(named("pandas:StringDtype"), SYSTEM),
        "a table": instance(named("pandas:DataFrame")),
        "an expression": call(named("pandas.core.computation.eval:eval"), "1"),
        "a file": call(named("pandas.io.pickle:read_pickle"), "/etc/hostname"),
        "a method of pandas": call(named("pandas:Series.to_pickle"), "x"),
        "a file of pyarrow": call(named("pyarrow.lib:memory_map"), "/etc/hostname"),
        "a type of pyarrow": call(named("pyarrow.lib:_reconstruct_table"), []),
        "memory of pyarrow": call(named("pyarrow.lib:foreign_buffer"), 4096, 8),
        "a name of pandas in pyarrow": named("pyarrow.lib:Series"),
        "a name of pyarrow in pandas": named("pandas:py_buffer"),
    }


def _scaler() -> Fragment:
    return instance(named("sklearn.preprocessing._data:StandardScaler"))
