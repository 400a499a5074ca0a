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
NUMBERS_FROM_0 = array(dtype("i8"), (2,), struct.pack("<2q", 0, 1))
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


# --- what only trusted classes get ------------------------------------------------------------------------------------


def table(blocks: list[tuple[Any, Any, Any]], columns: Any, rows: Any, dimensions: int = 2) -> Fragment:
    """Push a table of these blocks: values, the first place, the place after the last."""
    block = named("pandas._libs.internals:_unpickle_block")
    made = [
        call(block, values, call(named("builtins:slice"), start, stop, 1), dimensions) for values, start, stop in blocks
    ]
    return of_blocks(tuple(made), columns, rows)


def of_blocks(blocks: Any, *axes: Any) -> Fragment:
    """Push a table of anything in the place of its blocks."""
    whole = call(named("pandas.core.internals.managers:BlockManager"), blocks, list(axes))
    return built(instance(named("pandas:DataFrame")), {"_mgr": whole, "_typ": "dataframe", "attrs": {}})


def series(values: Any, rows: Any, name: Any = None) -> Fragment:
    """Push a Series."""
    blocks = {"0.14.1": {"axes": [rows], "blocks": [{"values": values, "mgr_locs": None}]}}
    held = built(instance(named("pandas.core.internals.managers:SingleBlockManager")), ([], [], [], blocks))
    return built(instance(named("pandas:Series")), {"_mgr": held, "_name": name})


def whole_table() -> Fragment:
    """Push a table that is sound, from which the lies differ."""
    return table([(_wide(), 0, 2)], index(TEXTS), index(NUMBERS_FROM_0))


def lies_of_objects() -> dict[str, Fragment]:
    """Return each lie that only a reader of real objects can tell from the truth: every one is to be refused."""
    columns, rows = index(TEXTS), index(NUMBERS)
    three = array(dtype("i8"), (3,), bytes(24))
    good = table([(_wide(), 0, 2)], columns, rows)
    block = call(named("pandas._libs.internals:_unpickle_block"), _wide(), call(named("builtins:slice"), 0, 2, 1), 2)
    estimators = array(dtype("O"), (1, 2), [_scaler(), _scaler()])
    return {
        "more rows than values": table([(_wide(), 0, 2)], columns, index(three)),
        "a place without a column": table([(_wide(), 0, 3)], columns, rows),
        "a place below": table([(_wide(), -1, 1)], columns, rows),
        "a place beyond": table([(_wide(), 1, 3)], columns, rows),
        "a place twice": table([(_wide(), 0, 2), (_wide(), 0, 2)], columns, rows),
        "no place": table([(_wide(), 0, 0)], columns, rows),
        "any number of places": table([(_wide(), 0, 1 << 62)], columns, rows),
        "places that are fractions": table([(_wide(), 0.0, 2.0)], columns, rows),
        "fewer columns than names": table([], columns, rows),
        "a block of one dimension": table([(_wide(), 0, 2)], columns, rows, dimensions=1),
        "values of one dimension": table([(NUMBERS, 0, 1)], index(array(dtype("O"), (1,), ["a"])), rows),
        "values that are estimators": table([(estimators, 0, 1)], index(array(dtype("O"), (1,), ["a"])), rows),
        "values that are a list": table([([[1, 2], [3, 4]], 0, 2)], columns, rows),
        "columns that are an array": table([(_wide(), 0, 2)], TEXTS, rows),
        "rows that are a list": table([(_wide(), 0, 2)], columns, [0, 1]),
        "one axis": of_blocks((block,), columns),
        "no blocks": of_blocks((_scaler(),), columns, rows),
        "a list of blocks": of_blocks([block], columns, rows),
        "a table of an estimator": built(instance(named("pandas:DataFrame")), {"_mgr": _scaler()}),
        "a table without a state": instance(named("pandas:DataFrame")),
        "a table that is called": call(named("pandas:DataFrame"), {"a": [1]}),
        "a state of a table": built(good, (_scaler(), 1)),
        "a state of a block": built(block, (_scaler(), 1)),
        "a series that is shorter than its index": series(three, rows),
        "a series with the index of an estimator": series(NUMBERS, _scaler()),
        "a series with an array as its index": series(NUMBERS, NUMBERS),
        "a series that an estimator names": series(NUMBERS, rows, _scaler()),
        "a series that a list names": series(NUMBERS, rows, ["a"]),
        "a series that a tuple of estimators names": series(NUMBERS, rows, (_scaler(),)),
        "a series of tuples of estimators": series(_tuples(_scaler()), rows),
        "an index of tuples of estimators": index(_tuples(_scaler())),
        "an index of tuples of lists": index(_tuples([1])),
        "an index that an estimator names": index(TEXTS, name=_scaler()),
        "categories that are there twice": categorical(CODES, array(dtype("O"), (2,), ["a", "a"])),
        "levels that are arrays": call(
            _NEW_INDEX, named("pandas:MultiIndex"), {"levels": [TEXTS], "codes": [CODES], "names": [None]}
        ),
        "texts of a storage": built(instance(named("pandas:StringDtype")), {"storage": "/etc/passwd"}),
        "a part without a state": instance(named("pandas:Series")),
    }


def _wide() -> Fragment:
    return array(dtype("i8"), (2, 2), struct.pack("<4q", 1, 2, 1, 2))


def _tuples(held: Any) -> Fragment:
    return array(dtype("O"), (2,), [(held,), (held,)])
