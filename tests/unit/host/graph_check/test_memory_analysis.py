"""The shapes that each kind of operator gives, compared with those of onnxruntime for several numbers of rows."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from serving.domain.errors import GraphRefused
from serving.host.graph_check.inputs_and_outputs import check_inputs
from serving.host.graph_check.memory_analysis import analyse_memory
from serving.host.graph_check.normal_form import write_normal_form
from serving.host.graph_check.operation import MICROSOFT
from serving.plane.graph import open_session
from tests.unit.host.graph_check.graphs import OPSETS, constant, model, node, signature

ML = "ai.onnx.ml"
WIDTH = 3
Case = tuple[list[Any], list[Any]]


def case(*nodes: Any, **constants: Any) -> Case:
    return list(nodes), [constant(name, values) for name, values in constants.items()]


SOUND: dict[str, Case] = {
    "one operand": case(node("Exp", "X", "a"), node("Softmax", "a", "y", axis=1)),
    "a parameter": case(node("Clip", "X low high", "y"), low=0.0, high=1.0),
    "a row beside rows": case(node("Add", "X row", "y"), row=[1.0, 2.0, 3.0]),
    "a column beside rows": case(node("ReduceMax", "X axis", "c", keepdims=1), node("Sub", "X c", "y"), axis=[1]),
    "all axes": case(node("ReduceSum", "X", "s", keepdims=0), node("Mul", "X s", "y")),
    "no axes": case(node("ReduceSum", "X none", "y", keepdims=0, noop_with_empty_axes=1), none=np.empty(0, np.int64)),
    "places": case(node("ArgMax", "X", "y", axis=1, keepdims=0)),
    "where": case(node("Greater", "X zero", "c"), node("Where", "c X zero", "y"), zero=0.0),
    "matrices": case(node("MatMul", "X weights", "y"), weights=np.ones((3, 5))),
    "a matrix and a list": case(node("MatMul", "X weights", "y"), weights=np.ones(3)),
    "stacks of matrices": case(node("MatMul", "X weights", "y"), weights=np.ones((4, 3, 2))),
    "Gemm": case(node("Gemm", "X weights bias", "y", transB=1), weights=np.ones((5, 3)), bias=np.ones(5)),
    "flat": case(node("Reshape", "X shape", "y"), shape=[-1]),
    "as many as before": case(node("Reshape", "X shape", "y"), shape=[0, 3, 1]),
    "by its own shape": case(node("Shape", "X", "s"), node("Flatten", "X", "f", axis=0), node("Reshape", "f s", "y")),
    "two axes": case(node("Flatten", "X", "y", axis=0)),
    "fewer axes": case(node("Unsqueeze", "X places", "u"), node("Squeeze", "u places", "y"), places=[0, 2]),
    "turned": case(node("Transpose", "X", "y", perm=[1, 0])),
    "beside": case(node("Concat", "X X X", "y", axis=1)),
    "below": case(node("Concat", "X X", "y", axis=0)),
    "split": case(node("Split", "X", "y z", axis=1, num_outputs=2)),
    "split in parts": case(node("Split", "X parts", "y z", axis=1), parts=[1, 2]),
    "cut": case(node("Slice", "X start end axis", "y"), start=[1], end=[1 << 62], axis=[1]),
    "backwards": case(node("Slice", "X start end axis step", "y"), start=[-1], end=[-(1 << 62)], axis=[1], step=[-1]),
    "looked up": case(
        node("ArgMin", "X", "p", axis=1, keepdims=1), node("Gather", "table p", "y", axis=0), table=np.ones((3, 4))
    ),
    "columns": case(node("Gather", "X places", "y", axis=1), places=[[0, -1], [2, 2]]),
    "cells": case(node("ArgMin", "X", "p", axis=1, keepdims=1), node("GatherElements", "X p", "y", axis=1)),
    "some": case(node("TopK", "X k", "y z", axis=1), k=[2]),
    "sums": case(node("CumSum", "X axis", "y"), axis=1),
    "as many rows": case(
        node("Shape", "X", "n", start=0, end=1),
        node("Concat", "n width", "s", axis=0),
        node("Expand", "value s", "y"),
        width=[2],
        value=[7.0],
    ),
    "twice as many rows": case(
        node("Shape", "X", "n", start=0, end=1), node("Mul", "n two", "m"), node("ConstantOfShape", "m", "y"), two=[2]
    ),
    "over and over": case(node("Tile", "X times", "y"), times=[1, 4]),
    "a count": case(
        node("Shape", "X", "n", start=0, end=1),
        node("Squeeze", "n axis", "m"),
        node("Range", "zero m one", "y"),
        axis=[0],
        zero=0,
        one=1,
    ),
    "all cells": case(
        node("Size", "X", "n"), node("Div", "n three", "m"), node("Range", "zero m one", "y"), three=3, zero=0, one=1
    ),
    "a margin": case(node("Pad", "X pads", "y"), pads=[0, 1, 0, 2]),
    "one-hot": case(
        node("ArgMax", "X", "p", axis=1, keepdims=0),
        node("OneHot", "p depth values", "y"),
        depth=4,
        values=np.array([0, 1], np.float32),
    ),
    "another type": case(node("Cast", "X", "y", to=TensorProto.FLOAT)),
    "text of numbers": case(node("Cast", "X", "y", to=TensorProto.STRING)),
    "columns of ml": case(node("ArrayFeatureExtractor", "X places", "y", domain=ML), places=[2, 0]),
    "labels at places": case(
        node("ArgMax", "X", "p", axis=1, keepdims=0),
        node("ArrayFeatureExtractor", "labels p", "y", domain=ML),
        labels=[5, 6, 7],
    ),
    "Scaler": case(node("Scaler", "X", "y", domain=ML, offset=[1.0, 2.0, 3.0], scale=[1.0, 1.0, 1.0])),
    "Normalizer": case(node("Normalizer", "X", "y", domain=ML, norm="L2")),
    "Binarizer": case(
        node("Cast", "X", "f", to=TensorProto.FLOAT), node("Binarizer", "f", "y", domain=ML, threshold=0.5)
    ),
    "Imputer": case(
        node("Cast", "X", "f", to=TensorProto.FLOAT), node("Imputer", "f", "y", domain=ML, imputed_value_floats=[1.0])
    ),
    "FeatureVectorizer": case(node("FeatureVectorizer", "X X", "y", domain=ML, inputdimensions=[3, 3])),
    "OneHotEncoder": case(
        node("Cast", "X", "i", to=TensorProto.INT64),
        node("OneHotEncoder", "i", "y", domain=ML, cats_int64s=[0, 1], zeros=1),
    ),
    "LabelEncoder": case(
        node("Cast", "X", "i", to=TensorProto.INT64),
        node("LabelEncoder", "i", "y", domain=ML, keys_int64s=[0], values_strings=["a"]),
    ),
    "CategoryMapper": case(
        node("Cast", "X", "i", to=TensorProto.INT64),
        node("CategoryMapper", "i", "y", domain=ML, cats_int64s=[0], cats_strings=["a"]),
    ),
    "LinearRegressor": case(
        node("LinearRegressor", "f", "y", domain=ML, targets=2, coefficients=[1.0] * 6, intercepts=[0.0, 1.0])
    ),
    "LinearClassifier": case(
        node(
            "LinearClassifier",
            "f",
            "y z",
            domain=ML,
            coefficients=[1.0] * 9,
            intercepts=[0.0] * 3,
            classlabels_ints=[1, 2, 3],
        )
    ),
    "LinearClassifier of one score": case(
        node(
            "LinearClassifier",
            "f",
            "y z",
            domain=ML,
            coefficients=[1.0] * 3,
            intercepts=[0.0],
            classlabels_strings=["a", "b"],
        )
    ),
    "SVMRegressor": case(
        node(
            "SVMRegressor",
            "f",
            "y",
            domain=ML,
            n_supports=2,
            support_vectors=[1.0] * 6,
            coefficients=[1.0] * 2,
            rho=[0.0],
            kernel_type="RBF",
            kernel_params=[1.0, 0.0, 3.0],
        )
    ),
    "SVMClassifier": case(
        node(
            "SVMClassifier",
            "f",
            "y z",
            domain=ML,
            vectors_per_class=[1, 1],
            support_vectors=[1.0] * 6,
            coefficients=[1.0] * 2,
            rho=[0.0],
            classlabels_ints=[0, 1],
            kernel_type="RBF",
            kernel_params=[1.0, 0.0, 3.0],
        )
    ),
    "SVMClassifier of three": case(
        node(
            "SVMClassifier",
            "f",
            "y z",
            domain=ML,
            vectors_per_class=[1, 1, 1],
            support_vectors=[1.0] * 9,
            coefficients=[1.0] * 6,
            rho=[0.0] * 3,
            classlabels_ints=[0, 1, 2],
            kernel_type="POLY",
            kernel_params=[1.0, 0.0, 3.0],
        )
    ),
    "SVMClassifier with shares": case(
        node(
            "SVMClassifier",
            "f",
            "y z",
            domain=ML,
            vectors_per_class=[1, 1, 1],
            support_vectors=[1.0] * 9,
            coefficients=[1.0] * 6,
            rho=[0.0] * 3,
            prob_a=[1.0] * 3,
            prob_b=[0.0] * 3,
            kernel_type="RBF",
            kernel_params=[1.0, 0.0, 3.0],
            classlabels_ints=[0, 1, 2],
        )
    ),
}


def test_the_memory_of_numbers_as_texts_is_counted() -> None:
    """A text of more than 15 characters has memory of its own."""
    made = write_normal_form(model(*SOUND["text of numbers"], width=WIDTH, outputs=["y"]).SerializeToString())
    taken = analyse_memory(made, check_inputs(signature(WIDTH), made))
    assert taken.memory.per_row >= WIDTH * (8 + 32 + len("-1.7976931348623157e+308"))


@pytest.mark.parametrize("name", SOUND)
def test_shapes_are_those_of_onnxruntime(name: str) -> None:
    nodes, constants = SOUND[name]
    if "f" in nodes[0].input:
        nodes = [node("Cast", "X", "f", to=TensorProto.FLOAT), *nodes]
    outputs = [each for made in nodes for each in made.output]
    made = write_normal_form(model(nodes, constants, width=WIDTH, outputs=outputs).SerializeToString())
    known = analyse_memory(made, check_inputs(signature(WIDTH), made)).outputs
    session = open_session(made.SerializeToString(), is_optimized=False)
    for rows in (1, 2, 7):
        values = session.run(outputs, {"X": np.zeros((rows, WIDTH))})
        for output, value in zip(outputs, values, strict=True):
            tensor = known[output]
            assert tuple(size.compute_for(rows) for size in tensor.shape) == np.shape(value), output
            if value.dtype != object:
                assert helper.tensor_dtype_to_np_dtype(tensor.dtype) == value.dtype, output
            if tensor.sizes is not None:
                assert [size.compute_for(rows) for size in tensor.sizes] == np.ravel(value).tolist(), output


def test_axes_are_attributes_in_older_versions() -> None:
    """A list of the single axis 0 is a list, too."""
    nodes = [node("Unsqueeze", "X", "u", axes=[0]), node("Shape", "u", "y")]
    made = write_normal_form(model(nodes, width=WIDTH, outputs=("u", "y"), opsets={"": 11}).SerializeToString())
    known = analyse_memory(made, check_inputs(signature(WIDTH), made)).outputs
    shape, sizes = open_session(made.SerializeToString()).run(["u", "y"], {"X": np.zeros((5, WIDTH))})
    assert tuple(size.compute_for(5) for size in known["u"].shape) == np.shape(shape)
    assert [size.compute_for(5) for size in known["y"].sizes or ()] == sizes.tolist()


TWO_VECTORS: dict[str, Any] = {
    "vectors_per_class": [1, 1],
    "support_vectors": [1.0] * 6,
    "coefficients": [1.0] * 2,
    "rho": [0.0],
    "classlabels_ints": [0, 1],
}
# by the reason of the refusal
REFUSED: dict[str, dict[str, Case]] = {
    "axes of 2 and n do not go together": {
        "rows that are a constant number": case(node("Add", "X row", "y"), row=[[1.0], [2.0]]),
    },
    "3n cells do not make axes of 2 cells for every number of rows": {
        "cells that do not divide": case(node("Reshape", "X shape", "y"), shape=[-1, 2]),
    },
    "3n cells are to make a shape with another number of cells": {
        "a reshape to other cells": case(node("Reshape", "X shape", "y"), shape=[3, 3]),
    },
    "two axes are left open": {
        "two open axes": case(node("Reshape", "X shape", "y"), shape=[-1, -1]),
    },
    "there is no axis 2 of 2": {
        "an axis that is not there": case(node("ArgMax", "X", "y", axis=2)),
    },
    "an axis is named twice": {
        "an axis twice": case(node("Unsqueeze", "X places", "y"), places=[0, 0]),
        "an axis summed up twice": case(node("ReduceSum", "X axes", "y"), axes=[1, 1]),
    },
    "it does not say which axes": {
        "squeezed without a name": case(node("Squeeze", "X", "y")),
    },
    "an axis is longer than 1": {
        "squeezed where it is longer": case(node("Squeeze", "X axis", "y"), axis=[1]),
    },
    "a place lies beyond an axis of 3": {
        "a place for each cell beyond its columns": case(node("GatherElements", "X places", "y", axis=1), places=[[7]]),
        "a place beyond its columns": case(node("Gather", "X places", "y", axis=1), places=[3]),
    },
    "a place lies beyond an axis of n": {
        "a row that may not be there": case(node("Gather", "X places", "y", axis=0), places=[1]),
    },
    "a place lies beyond its columns": {
        "a column of ml that is not there": case(node("ArrayFeatureExtractor", "X places", "y", domain=ML), places=[3]),
    },
    "it takes more cells than there are": {
        "more than there are": case(node("TopK", "X k", "y z", axis=1), k=[4]),
        "the largest of all rows": case(node("TopK", "X k", "y z", axis=0), k=[1]),
    },
    "which part of the rows it takes depends on how many there are": {
        "a part that depends on the rows": case(node("Slice", "X start end axis", "y"), start=[0], end=[5], axis=[0]),
    },
    "a tensor could be without cells": {
        "nothing at all": case(node("Slice", "X start end axis", "y"), start=[2], end=[2], axis=[1]),
        "no rows of one row": case(node("Slice", "X start end axis", "y"), start=[1], end=[1 << 62], axis=[0]),
    },
    "it says that it has another number of outputs": {
        "parts that it does not name": case(node("Split", "X", "y", axis=1, num_outputs=2)),
    },
    "it adds other than constants": {
        "a negative margin": case(node("Pad", "X pads", "y"), pads=[0, -1, 0, 0]),
        "a mirrored margin": case(node("Pad", "X pads", "y", mode="reflect"), pads=[0, 1, 0, 1]),
    },
    "integers are divided by a number that may be 0 or -1": {
        "integers divided by what could be 0": case(
            node("Cast", "X", "i", to=TensorProto.INT64), node("Div", "i i", "y")
        ),
        "integers divided by 0": case(
            node("Cast", "X", "i", to=TensorProto.INT64), node("Div", "i zero", "y"), zero=[0]
        ),
        "integers divided by -1": case(
            node("Cast", "X", "i", to=TensorProto.INT64), node("Mod", "i minus", "y"), minus=[-1]
        ),
    },
    "keepdims is 2": {
        "a flag that is none": case(node("ReduceSum", "X axis", "y", keepdims=2), axis=[1]),
    },
    "3 columns meet 4 rows": {
        "matrices that do not meet": case(node("MatMul", "X weights", "y"), weights=np.ones((4, 3))),
    },
    "its inputs do not fit side by side": {
        "columns not as wide": case(node("Concat", "X other", "y", axis=0), other=np.ones((2, 4))),
    },
    "its numbers are not as many as its columns": {
        "two numbers to fill three columns": case(
            node("Cast", "X", "i", to=TensorProto.INT64),
            node("Imputer", "i", "y", domain=ML, imputed_value_int64s=[0, 0]),
        ),
        "a scale for other columns": case(node("Scaler", "X", "y", domain=ML, offset=[1.0, 2.0], scale=[1.0, 1.0])),
        "one scale too few": case(node("Scaler", "X", "y", domain=ML, offset=[1.0] * 3, scale=[1.0])),
    },
    "it does not say how wide its matrices are": {
        "widths that are not so": case(node("FeatureVectorizer", "X X", "y", domain=ML, inputdimensions=[3, 300])),
    },
    "its table has not as many values as keys": {
        "categories without numbers": case(
            node("Cast", "X", "i", to=TensorProto.INT64),
            node("CategoryMapper", "i", "y", domain=ML, cats_strings=["a", "b"], cats_int64s=[0]),
        ),
        "a table with more keys": case(
            node("Cast", "X", "i", to=TensorProto.INT64),
            node("LabelEncoder", "i", "y", domain=ML, keys_int64s=[0, 1], values_strings=["a"]),
        ),
    },
    "its keys are of another type than its cells": {
        "keys of another type": case(node("LabelEncoder", "X", "y", domain=ML, keys_int64s=[0], values_strings=["a"])),
    },
    "its coefficients are not as many as it needs": {
        "too few coefficients": case(node("LinearRegressor", "f", "y", domain=ML, targets=2, coefficients=[1.0] * 5)),
        "no coefficients": case(node("LinearRegressor", "f", "y", domain=ML)),
        "fewer labels than scores": case(
            node(
                "LinearClassifier",
                "f",
                "y z",
                domain=ML,
                coefficients=[1.0] * 9,
                intercepts=[0.0] * 3,
                classlabels_ints=[1],
            )
        ),
    },
    "it lacks coefficients or intercepts": {
        "no intercepts": case(
            node("LinearClassifier", "f", "y z", domain=ML, coefficients=[1.0] * 9, classlabels_ints=[1, 2, 3])
        ),
    },
    "support_vectors has not 9 numbers": {
        "vectors that are missing": case(
            node(
                "SVMRegressor",
                "f",
                "y",
                domain=ML,
                n_supports=3,
                support_vectors=[1.0] * 6,
                coefficients=[1.0] * 3,
                rho=[0.0],
            )
        ),
    },
    "it does not say how many vectors each class has": {
        "classes without vectors": case(
            node(
                "SVMClassifier",
                "f",
                "y z",
                domain=ML,
                vectors_per_class=[5, -4],
                support_vectors=[1.0] * 3,
                coefficients=[1.0],
                rho=[0.0],
                classlabels_ints=[0, 1],
            )
        ),
    },
    "rho has not 3 numbers": {
        "pairs without rho": case(
            node(
                "SVMClassifier",
                "f",
                "y z",
                domain=ML,
                vectors_per_class=[1, 1, 1],
                support_vectors=[1.0] * 9,
                coefficients=[1.0] * 6,
                rho=[0.0],
                classlabels_ints=[0, 1, 2],
            )
        ),
    },
    "it takes a matrix of numbers": {
        "lengths of texts": case(
            node("Cast", "X", "t", to=TensorProto.STRING), node("Normalizer", "t", "y", domain=ML)
        ),
    },
    "it fills with neither floats nor integers": {"nothing to fill with": case(node("Imputer", "X", "y", domain=ML))},
    "its type is wrong": {
        "floats for doubles": case(node("Imputer", "X", "y", domain=ML, imputed_value_floats=[0.0])),
    },
    "it takes matrices": {
        "a matrix times a list": case(node("Gemm", "X list", "y"), list=[1.0] * 3),
        "a list beside a matrix": case(
            node("FeatureVectorizer", "X list", "y", domain=ML, inputdimensions=[3, 1]), list=[1.0]
        ),
    },
    "its matrices have not equally many rows": {
        "one row beside all": case(
            node("FeatureVectorizer", "X row", "y", domain=ML, inputdimensions=[3, 1]), row=[[1.0]]
        ),
    },
    "its keys are not in one list": {
        "keys of two types": case(
            node("LabelEncoder", "X", "y", domain=ML, keys_int64s=[0], keys_floats=[0.0], values_strings=["a"])
        ),
    },
    "it takes texts or integers": {
        "categories of floats": case(
            node("CategoryMapper", "X", "y", domain=ML, cats_strings=["a"], cats_int64s=[0]),
        ),
    },
    "it has other labels than scores": {
        "three labels for one score": case(
            node(
                "LinearClassifier",
                "f",
                "y z",
                domain=ML,
                coefficients=[1.0] * 3,
                intercepts=[0.0],
                classlabels_ints=[1, 2, 3],
            )
        ),
    },
    "its intercepts are not one for each target": {
        "two intercepts": case(
            node("LinearRegressor", "f", "y", domain=ML, coefficients=[1.0] * 3, intercepts=[0.0, 0.0])
        ),
    },
    "prob_b has not 1 numbers": {
        "half of the probabilities": case(
            node("SVMClassifier", "f", "y z", domain=ML, **TWO_VECTORS, kernel_params=[0.0] * 3, prob_a=[1.0])
        ),
    },
    "its kernel has not three parameters": {
        "a kernel of one parameter": case(
            node("SVMClassifier", "f", "y z", domain=ML, **TWO_VECTORS, kernel_params=[0.0])
        ),
    },
    "its kernel is not known": {
        "a kernel of its own": case(
            node("SVMClassifier", "f", "y z", domain=ML, **TWO_VECTORS, kernel_params=[0.0] * 3, kernel_type="OWN")
        ),
    },
    "it has no vectors": {"no vectors": case(node("SVMRegressor", "f", "y", domain=ML, n_supports=0))},
    "it takes columns": {
        "a single number": case(node("ArrayFeatureExtractor", "number places", "y", domain=ML), number=1.0, places=[0]),
    },
    "it has more than one default": {
        "two defaults": case(
            node("Cast", "X", "i", to=TensorProto.INT64),
            node(
                "LabelEncoder",
                "i",
                "y",
                domain=ML,
                keys_int64s=[0],
                values_int64s=[1],
                default_tensor=constant("", [0, 0]),
            ),
        ),
    },
    "its keys are no list": {
        "keys in a matrix": case(
            node("Cast", "X", "i", to=TensorProto.INT64),
            node("LabelEncoder", "i", "y", domain=ML, keys_tensor=constant("", [[0]]), values_int64s=[1]),
        ),
    },
    "its places have another shape": {
        "places of other rows": case(node("GatherElements", "X places", "y", axis=1), places=[[0], [0]])
    },
    "it swaps stacks": {
        "swapped stacks": case(node("FusedMatMul", "X w", "y", domain=MICROSOFT, transBatchA=1), w=np.ones((3, 2)))
    },
    "the tensor that it adds is too large": {
        "a sum with a wider row": case(node("Gemm", "X w c", "y"), w=np.ones((3, 1)), c=np.ones((1, 4)))
    },
    "its matrices have not equally many columns": {
        "distances to wider rows": case(node("CDist", "X other", "y", domain=MICROSOFT), other=np.ones((2, 4)))
    },
    "it multiplies a single number": {"a product with a number": case(node("MatMul", "X number", "y"), number=1.0)},
    "its depth is less than 1": {
        "no depth": case(
            node("Cast", "X", "i", to=TensorProto.INT64),
            node("OneHot", "i depth values", "y"),
            depth=[0],
            values=[0.0, 1.0],
        )
    },
    "it holds more than one value": {"two values": case(node("Constant", "", "y", value_int=1, value_float=1.0))},
    "it keeps an axis that does not exist": {
        "a third axis that is kept": case(node("Reshape", "X shape", "y"), shape=[-1, 3, 0])
    },
    "there is no axis 3": {"an axis beyond those that are flattened": case(node("Flatten", "X", "y", axis=3))},
    "its order does not name each axis once": {
        "an order with an axis twice": case(node("Transpose", "X", "y", perm=[0, 0]))
    },
    "it does not say along which axis": {"side by side without an axis": case(node("Concat", "X X", "y"))},
    "its inputs have not equally many axes": {
        "a list beside rows": case(node("Concat", "X list", "y", axis=0), list=[1.0])
    },
    "it splits an axis that depends on the rows": {
        "split rows": case(node("Split", "X", "y z", axis=0, num_outputs=2))
    },
    "its parts are not the whole": {
        "two of three columns": case(node("Split", "X parts", "y z", axis=1), parts=[1, 1])
    },
    "its lists have not one length": {
        "two starts and one end": case(node("Slice", "X start end axis", "y"), start=[0, 0], end=[1], axis=[1])
    },
    "it names an axis twice, or a step is 0": {
        "a step of 0": case(node("Slice", "X start end axis step", "y"), start=[0], end=[1], axis=[1], step=[0])
    },
    "it goes back from before the first cell": {
        "backwards from before the first": case(
            node("Slice", "X start end axis step", "y"), start=[-5], end=[-9], axis=[1], step=[-1]
        )
    },
    "an axis could be negative": {
        "all rows but two": case(node("Slice", "X start end axis", "y"), start=[0], end=[-2], axis=[0])
    },
    "it does not say how often for each axis": {
        "one repetition for two axes": case(node("Tile", "X times", "y"), times=[2])
    },
    "it fills with more than one value": {
        "two values to fill with": case(
            node("ConstantOfShape", "shape", "y", value=constant("", [1.0, 2.0])), shape=[2]
        )
    },
    "its ends are no numbers": {"a list as an end": case(node("Range", "a b c", "y"), a=[0, 1], b=10, c=1)},
    "it does not count upwards by one": {"counting by two": case(node("Range", "a b c", "y"), a=0, b=10, c=2)},
    "only its first output is known": {
        "means beside the result": case(node("LayerNormalization", "X scale", "y mean"), scale=[1.0] * 3)
    },
    "a parameter is too large": {
        "a limit with more axes": case(node("Clip", "X limit", "y"), limit=np.ones((5, 1, 1)))
    },
    "it drops cells at random": {
        "dropping cells": case(node("Dropout", "X ratio is_training", "y"), ratio=0.5, is_training=np.array(True))
    },
    "the element type 16 is not known": {
        "a type without a size": case(node("Cast", "X", "y", to=TensorProto.BFLOAT16))
    },
    "a list of sizes is too long": {"a shape of 65 axes": case(node("Reshape", "X shape", "y"), shape=[1] * 65)},
    "the number of features is not known": {
        "columns that depend on the rows": case(node("Transpose", "X", "t"), node("Normalizer", "t", "y", domain=ML))
    },
    "a constant is needed and depends on the rows": {
        "as many of the largest as rows": case(
            node("Shape", "X", "s", start=0, end=1), node("TopK", "X s", "y z", axis=1)
        )
    },
    "a size depends on values": {
        "a shape that the rows decide": case(node("Cast", "X", "i", to=TensorProto.INT64), node("Expand", "X i", "y"))
    },
    "grows faster than the number of rows": {
        "each row beside each": case(node("Transpose", "X", "t"), node("MatMul", "X t", "y"))
    },
}


@pytest.mark.parametrize(("reason", "name"), [(reason, name) for reason, cases in REFUSED.items() for name in cases])
def test_a_shape_that_is_not_linear_in_the_rows_is_refused(reason: str, name: str) -> None:
    nodes, constants = REFUSED[reason][name]
    if "f" in nodes[0].input:
        nodes = [node("Cast", "X", "f", to=TensorProto.FLOAT), *nodes]
    made = write_normal_form(model(nodes, constants, width=WIDTH, opsets={**OPSETS, MICROSOFT: 1}).SerializeToString())
    with pytest.raises(GraphRefused, match=re.escape(reason)):
        analyse_memory(made, check_inputs(signature(WIDTH), made))


def test_memory_is_the_sum_of_all_tensors_and_the_scratch_memory() -> None:
    made = write_normal_form(
        model([node("MatMul", "X weights", "y")], [constant("weights", np.ones((3, 5)))], width=3).SerializeToString()
    )
    taken = analyse_memory(made, check_inputs(signature(3), made))
    # rows of 3 and of 5 numbers, and a copy of both matrices that the kernel may make
    assert (taken.memory.per_row, taken.memory.fixed) == (8 * 3 + 8 * 5 + 8 * 3, 8 * 15)
