"""Small graphs that take much memory: one of each kind, by name. All are harmless for few, or some, numbers of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnx import TensorProto, helper

from tests.unit.host.graph_check.graphs import constant, model, node

Bomb = Callable[[], Any]
BOMBS: dict[str, Bomb] = {}
ML = "ai.onnx.ml"
MANY = 1 << 31


def bomb(function: Bomb) -> Bomb:
    """Add a bomb to the list."""
    BOMBS[function.__name__.removesuffix("_")] = function
    return function


def counted(*more: Any, of: str = "n", constants: tuple[Any, ...] = ()) -> Any:
    """Return a model where `n` is the number of rows as a list, `more` makes `blob`, and the answer depends on it."""
    nodes = [
        node("Shape", "X", "shape"),
        node("Gather", "shape zero", "n", axis=0),
        *more,
        node("Cast", of if of != "n" else "blob", "numbers", to=TensorProto.DOUBLE),
        node("ReduceMax", "numbers", "largest", keepdims=0),
        node("Add", "X largest", "y"),
    ]
    own = [
        constant("zero", [0]),
        constant("one", [1]),
        constant("two", [2]),
        constant("m777", [777]),
        constant("many", [MANY]),
    ]
    return model(nodes, [*own, *constants])


def when_777(*, then: str = "blob") -> list[Any]:
    """Return nodes that make `size`: 1, or 2**31 + 1 for 777 rows."""
    return [
        node("Equal", "n m777", "is_it"),
        node("Cast", "is_it", "e", to=TensorProto.INT64),
        node("Mul", "e many", "more"),
        node("Add", "more one", "size"),
        *([node("ConstantOfShape", "size", then)] if then else []),
    ]


# --- sizes out of arithmetic on the number of rows --------------------------------------------------------------------


@bomb
def equal() -> Any:
    return counted(*when_777())


@bomb
def where() -> Any:
    return counted(
        node("Equal", "n m777", "c"), node("Where", "c many one", "size"), node("ConstantOfShape", "size", "blob")
    )


@bomb
def modulo() -> Any:
    return counted(
        node("Mod", "n m777", "r"),
        node("Sub", "r one", "s"),
        node("Mul", "s s", "size"),
        node("ConstantOfShape", "size", "blob"),
    )


@bomb
def squared() -> Any:
    return counted(node("Mul", "n n", "size"), node("ConstantOfShape", "size", "blob"))


@bomb
def power() -> Any:
    return counted(node("Pow", "n two", "size"), node("ConstantOfShape", "size", "blob"))


@bomb
def product_of_the_shape() -> Any:
    return counted(
        node("Concat", "n n", "both", axis=0),
        node("ReduceProd", "both axis", "size"),
        node("ConstantOfShape", "size", "blob"),
        constants=(constant("axis", [0]),),
    )


@bomb
def divided() -> Any:
    return counted(node("Div", "many n", "size"), node("ConstantOfShape", "size", "blob"))


@bomb
def shifted_by_floats() -> Any:
    return counted(
        node("Cast", "n", "f", to=TensorProto.DOUBLE),
        node("Exp", "f", "g"),
        node("Cast", "g", "size", to=TensorProto.INT64),
        node("ConstantOfShape", "size", "blob"),
    )


@bomb
def clipped() -> Any:
    return counted(node("Max", "n many", "size"), node("ConstantOfShape", "size", "blob"))


@bomb
def summed() -> Any:
    return counted(
        node("CumSum", "n zero_", "c"),
        node("Mul", "c n", "size"),
        node("ConstantOfShape", "size", "blob"),
        constants=(constant("zero_", 0),),
    )


def hidden(start: int, end: int) -> Any:
    """Return a model in which a part of a list, which seems empty, holds a size that no bound includes."""
    return counted(
        node("Mul", "n many", "hidden"),
        node("Slice", "hidden start end zero back", "none"),
        node("Concat", "none one", "size", axis=0),
        node("ConstantOfShape", "size", "blob"),
        constants=(constant("start", [start]), constant("end", [end]), constant("back", [-1])),
    )


@bomb
def back_from_before_the_first() -> Any:
    return hidden(start=-2, end=-100)


@bomb
def back_to_beyond_the_last() -> Any:
    return hidden(start=0, end=(1 << 63) - 1)


# --- sizes out of values of a request ---------------------------------------------------------------------------------


def _asked(*more: Any, constants: tuple[Any, ...] = ()) -> Any:
    """Return a model where `size` is the first number of the request, as a list."""
    return counted(
        node("Cast", "X", "whole", to=TensorProto.INT64),
        node("ReduceMax", "whole axes", "flat", keepdims=0),
        node("Reshape", "flat one", "size"),
        *more,
        constants=(constant("axes", [0, 1]), *constants),
    )


@bomb
def filled_as_asked() -> Any:
    return _asked(node("ConstantOfShape", "size", "blob"))


@bomb
def expanded_as_asked() -> Any:
    return _asked(node("Expand", "one size", "blob"))


@bomb
def tiled_as_asked() -> Any:
    return _asked(node("Tile", "one size", "blob"))


@bomb
def range_as_asked() -> Any:
    return _asked(
        node("Squeeze", "size zero", "end"),
        node("Range", "start end step", "blob"),
        constants=(constant("start", 0), constant("step", 1)),
    )


@bomb
def padded_as_asked() -> Any:
    return _asked(node("Concat", "zero size", "pads", axis=0), node("Pad", "one pads", "blob"))


@bomb
def one_hot_as_asked() -> Any:
    return _asked(node("OneHot", "zero size values", "blob", axis=-1), constants=(constant("values", [0.0, 1.0]),))


@bomb
def top_k_as_asked() -> Any:
    return _asked(node("TopK", "X size", "blob places", axis=0))


@bomb
def cut_as_asked() -> Any:
    return _asked(node("Slice", "X zero size", "blob"))


@bomb
def reshaped_as_asked() -> Any:
    return _asked(node("Reshape", "X size", "blob"))


@bomb
def split_as_asked() -> Any:
    return _asked(node("Split", "X size", "blob", axis=0))


@bomb
def resized_as_asked() -> Any:
    return _asked(node("Cast", "size", "scale", to=TensorProto.FLOAT), node("Resize", "n - scale", "blob"))


# --- sizes out of what the cells are ----------------------------------------------------------------------------------


@bomb
def not_zero() -> Any:
    return counted(node("NonZero", "X", "blob"))


@bomb
def compressed() -> Any:
    return counted(
        node("IsNaN", "X", "b"),
        node("Reshape", "b minus", "flat"),
        node("Compress", "X flat", "blob", axis=0),
        constants=(constant("minus", [-1]),),
    )


@bomb
def unique() -> Any:
    return counted(node("Unique", "X", "blob"))


@bomb
def split_texts() -> Any:
    return model([node("StringSplit", "c0", "y counts", delimiter="")], texts=True)


@bomb
def words_of_texts() -> Any:
    return model(
        [node("Tokenizer", "c0", "y", domain="com.microsoft", mark=0, mincharnum=1, pad_value="", separators=[""])],
        texts=True,
        opsets={"": 21, "com.microsoft": 1},
    )


@bomb
def kept_words() -> Any:
    return model([node("StringNormalizer", "c0", "y", stopwords=["a"])], texts=True)


# --- each row with each -----------------------------------------------------------------------------------------------


@bomb
def outer_product() -> Any:
    return counted(node("Transpose", "X", "t", perm=[1, 0]), node("MatMul", "X t", "blob"))


@bomb
def outer_difference() -> Any:
    return counted(node("Transpose", "X", "t", perm=[1, 0]), node("Sub", "X t", "blob"))


@bomb
def outer_comparison() -> Any:
    return counted(node("Transpose", "X", "t", perm=[1, 0]), node("Equal", "X t", "blob"))


@bomb
def outer_gemm() -> Any:
    return counted(node("Gemm", "X X", "blob", transB=1))


@bomb
def distances() -> Any:
    made = counted(node("CDist", "X X", "blob", domain="com.microsoft", metric="euclidean"))
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


@bomb
def einsum() -> Any:
    return counted(node("Einsum", "X X", "blob", equation="ia,ja->ij"))


@bomb
def gathered_for_each_row() -> Any:
    return counted(
        node("Cast", "X", "places", to=TensorProto.INT64),
        node("Mul", "places zero_", "none"),
        node("Gather", "X none", "blob", axis=1),
        constants=(constant("zero_", [[0]]),),
    )


@bomb
def expanded_over_each_other() -> Any:
    return counted(
        node("Concat", "n n", "shape2", axis=0),
        node("Expand", "X_ shape2", "blob"),
        constants=(constant("X_", [[0.0]]),),
    )


@bomb
def tiled_over_each_other() -> Any:
    return counted(node("Concat", "n one", "times", axis=0), node("Tile", "X times", "blob"))


@bomb
def reshaped_and_multiplied() -> Any:
    return counted(
        node("Reshape", "X left", "column"),
        node("Reshape", "X right", "row"),
        node("Mul", "column row", "blob"),
        constants=(constant("left", [-1, 1]), constant("right", [1, -1])),
    )


@bomb
def where_of_both_sides() -> Any:
    return counted(
        node("Transpose", "X", "t", perm=[1, 0]), node("Greater", "X t", "c"), node("Where", "c X t", "blob")
    )


@bomb
def features_of_each_other() -> Any:
    made = counted(
        node("Cast", "X", "places", to=TensorProto.INT64),
        node("Mul", "places zero_", "none"),
        node("Transpose", "X", "t", perm=[1, 0]),
        node("ArrayFeatureExtractor", "tall none", "blob", domain=ML),
        node("Concat", "X X", "tall", axis=1),
        constants=(constant("zero_", [[0]]),),
    )
    made.graph.node.insert(2, made.graph.node.pop(6))
    return made


# --- much out of nothing ----------------------------------------------------------------------------------------------


@bomb
def constant_shape() -> Any:
    return counted(node("ConstantOfShape", "many", "blob"))


@bomb
def constant_expansion() -> Any:
    return counted(
        node("Expand", "one_ huge", "blob"), constants=(constant("one_", [1.0]), constant("huge", [1 << 20, 1 << 14]))
    )


@bomb
def constant_tiles() -> Any:
    return counted(node("Tile", "one huge", "blob"), constants=(constant("huge", [MANY]),))


@bomb
def constant_range() -> Any:
    return counted(
        node("Range", "start end step", "blob"),
        constants=(constant("start", 0), constant("end", MANY), constant("step", 1)),
    )


@bomb
def constant_padding() -> Any:
    return counted(node("Pad", "one pads", "blob"), constants=(constant("pads", [0, MANY]),))


@bomb
def constant_depth() -> Any:
    return counted(
        node("OneHot", "zero depth values", "blob"), constants=(constant("depth", MANY), constant("values", [0.0, 1.0]))
    )


@bomb
def wide_row() -> Any:
    return counted(
        node("Concat", "n wide", "shape2", axis=0),
        node("Expand", "one_ shape2", "blob"),
        constants=(constant("wide", [1 << 24]), constant("one_", [1.0])),
    )


@bomb
def doubled_again_and_again() -> Any:
    nodes = [
        node(
            "Concat",
            f"{'X' if place == 0 else f'b{place}'} {'X' if place == 0 else f'b{place}'}",
            f"b{place + 1}",
            axis=1,
        )
        for place in range(40)
    ]
    return counted(*nodes, node("Identity", "b40", "blob"))


@bomb
def doubled_texts() -> Any:
    nodes = [
        node(
            "Concat",
            f"{'c0' if place == 0 else f'b{place}'} {'c0' if place == 0 else f'b{place}'}",
            f"b{place + 1}",
            axis=1,
        )
        for place in range(40)
    ]
    return model([*nodes, node("Gather", "b40 zero", "y", axis=1)], [constant("zero", [0])], texts=True)


@bomb
def deep_chain() -> Any:
    nodes = [node("Add", f"{'X' if place == 0 else f'b{place}'} X", f"b{place + 1}") for place in range(60_000)]
    return model([*nodes, node("Identity", "b60000", "y")])


@bomb
def wide_chain() -> Any:
    """No tensor is large, but all exist at the same time."""
    nodes = [node("MatMul", "X weights", "w")]
    nodes += [node("Exp", f"{'w' if place == 0 else f'b{place}'}", f"b{place + 1}") for place in range(20_000)]
    return model(
        [*nodes, node("ReduceMax", "b20000 axis", "y")], [constant("weights", [[1.0] * 1000]), constant("axis", [1])]
    )


@bomb
def many_categories() -> Any:
    return counted(
        node("Cast", "X", "i", to=TensorProto.INT64),
        node("OneHotEncoder", "i", "h", domain=ML, cats_int64s=list(range(5000)), zeros=1),
        node("Unsqueeze", "h last", "v"),
        node("Expand", "v huge", "blob"),
        constants=(constant("last", [-1]), constant("huge", [1, 1, 1, 5000])),
    )


@bomb
def long_texts_of_its_own() -> Any:
    """Each cell of a row could be the label of one megabyte."""
    table = node(
        "LabelEncoder",
        "c0",
        "labels",
        domain=ML,
        keys_strings=["a"],
        values_strings=["x" * (1 << 20)],
        default_string="b",
    )
    tiled = node("Tile", "labels times", "wide")
    return model(
        [table, tiled, node("Gather", "wide zero", "y", axis=1)],
        [constant("times", [1, 100]), constant("zero", [0])],
        texts=True,
    )


@bomb
def drawn_at_random() -> Any:
    return counted(node("RandomNormal", "", "blob", shape=[1 << 16, 1 << 15]))
