"""Sound graphs of all kinds, and what becomes of them when anything in them is changed."""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pandas as pd
from onnx import AttributeProto, TensorProto
from sklearn import dummy, ensemble, linear_model, neighbors, neural_network, preprocessing, svm
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from serving.compiling.convert import convert_estimator
from serving.compiling.onnx_files import add_known_texts, convert_file
from serving.domain.compiled_form import Graph
from serving.domain.signature import Signature
from serving.host.graph_check.memory_analysis import RULES  # with every rule in it
from serving.host.onnx_model import load_onnx
from serving.host.signature_of_estimator import examine_estimator

RANDOM = np.random.default_rng(11)
ROWS = RANDOM.normal(size=(80, 5))
LABELS = np.arange(80) % 3
WORDS = np.array(["red", "green", "blue"])[LABELS]
TABLE = pd.DataFrame({"kind": WORDS, "size": ROWS[:, 0], "flag": np.resize([True, False, None], 80)})
EXTREMES = (
    0,
    1,
    -1,
    2,
    3,
    5,
    7,
    63,
    64,
    255,
    256,
    777,
    65535,
    1 << 20,
    1 << 31,
    1 << 33,
    -(1 << 31),
    1 << 62,
    -(1 << 63),
)
# operators that make much of little, or that no rule knows: a mutant may get any of them
OTHERS = (
    *(
        "NonZero",
        "Compress",
        "Unique",
        "Resize",
        "StringSplit",
        "Einsum",
        "Loop",
        "If",
        "Scan",
        "RandomNormal",
        "EyeLike",
    ),
    *("ScatterElements", "GatherND", "Trilu", "Det", "NonMaxSuppression", "Bernoulli", "ImageDecoder", "SequenceEmpty"),
)


class Sound(NamedTuple):
    """One graph that is as it should be, and the signature of its model."""

    name: str
    signature: Signature
    graph: Graph


def estimators() -> dict[str, Callable[[], Any]]:
    """Return fitted estimators, made when they are asked for, that together use every converter's kinds of nodes."""
    return {
        "logistic": lambda: make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()).fit(
            ROWS, WORDS
        ),
        "forest": lambda: ensemble.RandomForestClassifier(4, max_depth=4, random_state=0).fit(ROWS, LABELS),
        "boosting": lambda: ensemble.HistGradientBoostingRegressor(max_iter=4, random_state=0).fit(ROWS, ROWS[:, 0]),
        "ada": lambda: ensemble.AdaBoostRegressor(n_estimators=4, random_state=0).fit(ROWS, ROWS[:, 0]),
        "isolation": lambda: ensemble.IsolationForest(n_estimators=4, random_state=0).fit(ROWS),
        "neighbors": lambda: neighbors.KNeighborsClassifier(3).fit(ROWS[:20], LABELS[:20]),
        "svc": lambda: svm.SVC().fit(ROWS, LABELS),
        "network": lambda: neural_network.MLPClassifier((4,), max_iter=20).fit(ROWS, LABELS),
        "spline": lambda: preprocessing.SplineTransformer(3).fit(ROWS[:, :2]),
        "quantile": lambda: preprocessing.QuantileTransformer(n_quantiles=9).fit(ROWS[:, :2]),
        "table": lambda: make_pipeline(
            make_column_transformer(
                (preprocessing.OneHotEncoder(handle_unknown="ignore"), ["kind", "flag"]), (SimpleImputer(), ["size"])
            ),
            linear_model.LogisticRegression(),
        ).fit(TABLE, WORDS),
        "constant": lambda: dummy.DummyClassifier().fit(ROWS, WORDS),
    }


def sound_graphs() -> Iterator[Sound]:
    """Return graphs that our converters draw, and graphs of files that skl2onnx writes."""
    for name, make in estimators().items():
        with warnings.catch_warnings(action="ignore"):
            model = examine_estimator(make())
            yield Sound(name, model.signature, convert_estimator(model))
    yield from _of_files()


def _of_files() -> Iterator[Sound]:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    fitted = {
        "file: logistic": linear_model.LogisticRegression().fit(ROWS, WORDS),
        "file: linear": linear_model.LinearRegression().fit(ROWS, ROWS[:, :2]),
        "file: forest": ensemble.RandomForestClassifier(3, max_depth=3, random_state=0).fit(ROWS, LABELS),
        "file: boosting": ensemble.GradientBoostingRegressor(n_estimators=3, random_state=0).fit(ROWS, ROWS[:, 0]),
        "file: svc": svm.SVC().fit(ROWS, LABELS),
        "file: svr": svm.SVR().fit(ROWS, ROWS[:, 0]),
        "file: scaled": make_pipeline(preprocessing.StandardScaler(), preprocessing.Normalizer()).fit(ROWS),
    }
    for name, estimator in fitted.items():
        with warnings.catch_warnings(action="ignore"), tempfile.TemporaryDirectory() as directory:
            made = convert_sklearn(estimator, initial_types=[("X", FloatTensorType([None, 5]))])
            path = Path(directory, "model.onnx")
            path.write_bytes(made.SerializeToString())
            model = add_known_texts(load_onnx(str(path)))
            yield Sound(name, model.signature, convert_file(model))


# --- changing anything ------------------------------------------------------------------------------------------------


def mutated(graph: Graph, dice: random.Random) -> Graph:
    """Return a graph with some things changed at random: values, types, shapes, nodes, names, or raw bytes."""
    model = onnx.load_from_string(bytes(graph.content))
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        dice.choice(_CHANGES)(model, dice)
    content = bytearray(model.SerializeToString())
    if dice.random() < 0.1 and content:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return Graph(bytes(content), graph.outputs)


def _change_attribute(model: Any, dice: random.Random) -> None:
    held = [attribute for node in model.graph.node for attribute in node.attribute]
    if not held:
        return
    attribute = dice.choice(held)
    if attribute.type == AttributeProto.INT:
        attribute.i = _integer(attribute.i, dice)
    elif attribute.type == AttributeProto.INTS:
        _change_list(attribute.ints, lambda value: _integer(value, dice), dice)
    elif attribute.type == AttributeProto.FLOATS:
        _change_list(attribute.floats, lambda value: dice.choice((0.0, -value, 1e38, float("nan"))), dice)
    elif attribute.type == AttributeProto.STRINGS:
        _change_list(attribute.strings, lambda value: dice.choice((b"", value * 2, b"BRANCH_EQ", b"LEAF")), dice)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = dice.choice((b"", b"POLY", b"SOFTMAX_ZERO", b"LOGISTIC", b"reflect", attribute.s[::-1]))
    elif attribute.type == AttributeProto.TENSOR:
        _change_tensor(attribute.t, dice)
    else:
        attribute.f = dice.choice((0.0, -1.0, float("inf")))


def _change_constant(model: Any, dice: random.Random) -> None:
    if model.graph.initializer:
        _change_tensor(dice.choice(model.graph.initializer), dice)


def _change_tensor(tensor: Any, dice: random.Random) -> None:
    try:
        array = np.array(onnx.numpy_helper.to_array(tensor))
    except Exception:  # noqa: BLE001  (it was changed before)
        return
    name, choice = tensor.name, dice.randrange(6)
    if choice == 0 and tensor.dims:
        tensor.dims[dice.randrange(len(tensor.dims))] = dice.choice(EXTREMES)
        return
    if choice == 1:
        tensor.data_type = dice.randrange(0, 17)
        return
    if array.dtype.kind in "OUS" or not array.size:
        return
    flat = array.ravel()
    if choice == 2:
        array = flat[: dice.randrange(len(flat) + 1)]
    elif choice == 3:
        array = np.resize(flat, len(flat) + dice.choice((1, len(flat))))
    elif choice == 4:
        array = array.astype(dice.choice((np.float32, np.float64, np.int64, np.int32, np.bool_)))
    else:
        at = dice.randrange(len(flat))
        flat[at] = (
            _integer(int(flat[at]), dice)
            if array.dtype.kind in "iu" and array.dtype.itemsize == 8
            else dice.choice((0, 1))
        )
        array = flat.reshape(array.shape)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))


def _change_kind(model: Any, dice: random.Random) -> None:
    node = dice.choice(model.graph.node)
    domain, kind = dice.choice([*sorted(RULES), *(("", other) for other in OTHERS)])
    node.domain, node.op_type = domain, kind
    if dice.random() < 0.5:
        del node.attribute[:]


def _change_input(model: Any, dice: random.Random) -> None:
    node = dice.choice(model.graph.node)
    names = [*(each.name for each in model.graph.initializer), *(each.name for each in model.graph.input), ""]
    names += [name for each in model.graph.node for name in each.output]
    if node.input and dice.random() < 0.8:
        node.input[dice.randrange(len(node.input))] = dice.choice(names)
    else:
        node.input.append(dice.choice(names))


def _add_node(model: Any, dice: random.Random) -> None:
    names = [*(each.name for each in model.graph.initializer), *(each.name for each in model.graph.input)]
    names += [name for each in model.graph.node for name in each.output if name]
    domain, kind = dice.choice(sorted(RULES))
    node = model.graph.node.add(op_type=kind, domain=domain, output=["more"])
    node.input.extend(dice.choices(names, k=dice.choice((1, 1, 2, 2, 3))))
    user = dice.choice(model.graph.node)
    if user.input:
        user.input[dice.randrange(len(user.input))] = "more"
    nodes = list(model.graph.node)
    nodes.insert(dice.randrange(len(nodes)), nodes.pop())
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _drop_node(model: Any, dice: random.Random) -> None:
    if len(model.graph.node) > 1:
        del model.graph.node[dice.randrange(len(model.graph.node))]


def _drop_attribute(model: Any, dice: random.Random) -> None:
    node = dice.choice(model.graph.node)
    if node.attribute:
        del node.attribute[dice.randrange(len(node.attribute))]


def _change_version(model: Any, dice: random.Random) -> None:
    dice.choice(model.opset_import).version = dice.randrange(1, 28)


def _change_declared(model: Any, dice: random.Random) -> None:
    value = dice.choice([*model.graph.input, *model.graph.output])
    value.type.tensor_type.elem_type = dice.choice((TensorProto.FLOAT, TensorProto.STRING, TensorProto.INT64))


def _change_list(values: Any, change: Callable[[Any], Any], dice: random.Random) -> None:
    if not len(values):
        return
    choice, at = dice.randrange(4), dice.randrange(len(values))
    if choice == 0:
        del values[at]
    elif choice == 1:
        values.append(values[at])
    else:
        values[at] = change(values[at])


def _integer(value: int, dice: random.Random) -> int:
    made = dice.choice((value + 1, value - 1, -value, *EXTREMES))
    return max(-(1 << 63), min((1 << 63) - 1, made))


_CHANGES: tuple[Callable[[Any, random.Random], None], ...] = (
    *(_change_attribute,) * 5,
    *(_change_constant,) * 4,
    *(_change_kind,) * 3,
    *(_change_input,) * 3,
    *(_add_node,) * 2,
    _drop_node,
    _drop_attribute,
    _change_version,
    _change_declared,
)
