"""An ``.onnx`` file as a graph that the server can answer with: the file's own nodes between inputs and outputs of ours.

In front come the conversions `OnnxModel` does to each request, behind what it does to the answers: no ZipMap, labels and
single values in one dimension. What it refuses, the graph must not answer: where the guard cannot see to that, and
where answering could do a server harm, the model stays in its host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.compose import add_prefix
from onnx.external_data_helper import uses_external_data

from serving.domain.compiled import Graph
from serving.domain.errors import ServingError
from serving.domain.signature import Dtype, Method
from serving.host.compiling.converters.blocks import Rows
from serving.host.compiling.converters.labels import as_column
from serving.host.compiling.drawing import Drawing, NotCompilable
from serving.host.compiling.layout import feed_of, fitted_to, inputs_of, outputs_of, run_once
from serving.host.model import told
from serving.host.onnx_model import Input, OnnxModel

PREFIX = "file/"
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_SAMPLE_ROWS = 3
_FIRST = ("predict", "transform")


def convert_file(model: OnnxModel, methods: Sequence[Method] | None = None) -> Graph:
    """Return one graph answering `methods`, by default all that `model` offers; see `serving.domain.compiled`. Blocks.

    Raises NotCompilable when the file needs others, operators nobody knows, or loops; or takes other than floats, bools
    and text.
    """
    chosen = tuple(model.signature.methods if methods is None else methods)
    batch = model.sample(_SAMPLE_ROWS)
    try:
        wanted = {method: model.answer(method, batch).tensors for method in chosen}
    except ServingError as error:
        raise NotCompilable(f"the model does not answer made-up rows ({error})") from None
    drawing = Drawing()
    sources = _fed(model, inputs_of(model.signature, drawing))
    file = _File(model.path)
    front = [helper.make_node("Identity", [name], [PREFIX + each]) for each, name in sources.items()]
    file.begin_with([*drawing.nodes, *front])
    drawing.nodes.clear()
    names = {method: file.answers(drawing, method, len(wanted[method])) for method in chosen}
    pairs = [
        (method, name, tensor)
        for method in chosen
        for name, tensor in zip(names[method], wanted[method], strict=True)
    ]
    got = run_once(file.serialized(drawing, [helper.make_empty_tensor_value_info(name) for _, name, _ in pairs]))
    raise NotImplementedError
