"""Compile one model: convert, prove and measure it, in a process that ends afterwards."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from functools import partial

from serving import json_codec
from serving.compiling.drawing import NotCompilable
from serving.compiling.find_guard import ProvableModel
from serving.compiling.forked_worker import ForkedWorker, WorkFailed
from serving.domain.compiled_form import Compilation, Graph
from serving.domain.errors import ServingError
from serving.domain.signature import Dtype
from serving.host.estimator_model import EstimatorModel
from serving.host.graph_check.graph_check import bound_graphs
from serving.host.input_columns import InputColumn
from serving.host.model import LoadedModel, describe_exception, one_line
from serving.host.nested_estimators import walk_nested_estimators
from serving.rows.batch import Batch
from serving.rows.integers import EXACT, has_rounded_cell
from serving.wire.evaluation import CompileRequest

# onnxruntime always computes a whole graph, so the default method gets a graph of its own. A larger model gets only one
# graph: two would take twice the memory.
MOST_BYTES_TWICE = 4 << 20
BEYOND_INTEGERS = 2.0**64  # larger numbers are no 64-bit integers
KNOWN_PACKAGES = ("sklearn.", "xgboost.", "lightgbm.")

Draw = Callable[..., Graph]

_HEAD = struct.Struct("<Q")


def compile_in_worker(
    worker: ForkedWorker, model: LoadedModel, request: CompileRequest
) -> tuple[Compilation, tuple[Graph, ...]]:
    """Return the verdict over a compiled form of `model`, and the graphs if it passed. Blocks; never raises.

    The work of `worker` is `compile_model` of the same model; the worker has ended afterwards.
    """
    begin = time.monotonic()
    refusal = why_not_compilable(model)
    graphs: tuple[Graph, ...] = ()
    try:
        if refusal is not None:
            compilation = Compilation(engine=None, reason=refusal)
        else:
            compilation, graphs = _decode_result(worker.run(request.seconds))
    except WorkFailed as error:
        compilation = Compilation(engine=None, reason=str(error), is_final=False)
    finally:
        worker.dismiss()
    return compilation.model_copy(update={"seconds": time.monotonic() - begin}), graphs


def why_not_compilable(model: LoadedModel) -> str | None:
    """Say why a model has no compiled form, where that is known without any import; None when it may have one."""
    if not isinstance(model, EstimatorModel):
        return None
    for part in walk_nested_estimators(model.estimator):
        if hasattr(part, "fit") and not type(part).__module__.startswith(KNOWN_PACKAGES):
            return f"{type(part).__name__} is no estimator of scikit-learn, XGBoost or LightGBM"
    if model.signature.is_typed:
        return "code of the model's author gets integers as they are sent, but a graph gets float64"
    for column, feature in zip(model.columns, model.signature.features, strict=True):
        if column.date_kind is not None:
            return f"feature '{feature.name}' is dates or durations, which no graph takes"
        bounds = [abs(bound) for bound in (column.low, column.high) if bound is not None]
        if has_rounded_cell(column.values) or any(EXACT < bound < BEYOND_INTEGERS for bound in bounds):
            return f"feature '{feature.name}' may be integers beyond 2**53, which a graph in float64 would round"
    return None


def import_compilers() -> None:
    """Import all that compiling needs. Not in a zygote: onnxruntime starts a thread."""
    from serving.compiling import convert, onnx_files, prove  # noqa: F401, PLC0415
    from serving.compiling.converters import fallback  # noqa: F401, PLC0415


def compile_model(model: LoadedModel, request: CompileRequest, examples: Sequence[Batch]) -> bytes:
    """Convert, prove and measure `model` in this process; returns the verdict and the graphs as bytes. Blocks.

    `examples` are golden rows.
    """
    graphs: list[Graph] = []
    try:
        from serving.compiling.prove import prove_graphs  # noqa: PLC0415  (imports onnxruntime, which starts a thread)

        subject, draw = _choose_draw(model, request)
        bounded = bound_graphs(_convert_model(subject, draw, request), subject.signature)
        graphs = list(bounded.graphs)
        compilation = prove_graphs(subject, graphs, request.tolerance, examples, bounded.bounds.rows)
    except ServingError as error:
        compilation, graphs = Compilation(engine=None, reason=one_line(str(error))), []
    except Exception as error:  # noqa: BLE001  (the model's own code, and three libraries)
        compilation, graphs = Compilation(engine=None, reason=f"compiling failed: {describe_exception(error)}"), []
    return _encode_result(compilation, graphs)


def _choose_draw(model: LoadedModel, request: CompileRequest) -> tuple[ProvableModel, Draw]:
    """Return the model to prove, and a function that draws a graph for some of its methods."""
    if isinstance(model, EstimatorModel):
        model = _replace_unused_columns(model)
        from serving.compiling.convert import convert_estimator  # noqa: PLC0415  (imports onnxruntime too)

        return model, partial(convert_estimator, model, max_nodes=request.nodes)
    from serving.compiling.onnx_files import add_known_texts, convert_file  # noqa: PLC0415
    from serving.host.onnx_model import OnnxModel  # noqa: PLC0415

    if not isinstance(model, OnnxModel):
        raise NotCompilable(f"{model.name} is answered by {model.engine} only")
    subject = add_known_texts(model)
    return subject, partial(convert_file, subject)


def _replace_unused_columns(model: EstimatorModel) -> EstimatorModel:
    """Return the same model with number columns where it does not use a column: so batches have them."""
    features = model.signature.features
    if all(feature.is_used for feature in features):
        return model
    plain = tuple(each if each.is_used else each.model_copy(update={"dtype": Dtype.NUMBER}) for each in features)
    columns = [
        column if feature.is_used else InputColumn(column.name, Dtype.NUMBER, is_used=False)
        for column, feature in zip(model.columns, features, strict=True)
    ]
    return model.with_signature(model.signature.model_copy(update={"features": plain})).with_columns(columns)


def _convert_model(model: ProvableModel, draw: Draw, request: CompileRequest) -> list[Graph]:
    first, *others = model.signature.methods
    whole = draw()
    if len(whole.content) > request.bytes:
        size = f"{len(whole.content) >> 20} MB"
        raise NotCompilable(f"the graph takes {size}, allowed are {request.bytes >> 20} MB (engine.compile_mb)")
    if not others or len(whole.content) > MOST_BYTES_TWICE:
        return [whole]
    return [draw((first,)), draw(others)]


def _encode_result(compilation: Compilation, graphs: Sequence[Graph]) -> bytes:
    head = json_codec.dumps(
        {
            "compilation": compilation.model_dump(mode="json"),
            "graphs": [graph.describe() for graph in graphs],
        },
        option=json_codec.OPT_NON_STR_KEYS,
    )
    return b"".join([_HEAD.pack(len(head)), head, *(graph.content for graph in graphs)])


def _decode_result(raw: bytes) -> tuple[Compilation, tuple[Graph, ...]]:
    (size,) = _HEAD.unpack_from(raw)
    start = _HEAD.size + size
    head = json_codec.loads(raw[_HEAD.size : start])
    graphs = []
    for each in head["graphs"]:
        graphs.append(Graph.of(each, raw[start : start + each["bytes"]]))
        start += each["bytes"]
    return Compilation.model_validate(head["compilation"]), tuple(graphs)
