"""Compiling one model: convert, prove, measure, in a process that is gone afterwards."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

import orjson

from serving.domain.batch import Batch
from serving.domain.compiled import Compilation, Graph
from serving.host.compiling.apart import Unfinished, run_apart
from serving.host.compiling.drawing import NotCompilable
from serving.host.estimator import EstimatorModel
from serving.host.evaluation import CompileRequest
from serving.host.model import LoadedModel, one_line, told
from serving.host.parts import all_parts

# onnxruntime computes all of a graph whatever is asked of it, so the default method gets one of its own; a large model
# is not held twice for that
MOST_BYTES_TWICE = 4 << 20
KNOWN_PACKAGES = ("sklearn.", "xgboost.", "lightgbm.")

_HEAD = struct.Struct("<Q")


def compile_model(
    model: LoadedModel, request: CompileRequest, examples: Sequence[Batch]
) -> tuple[Compilation, tuple[Graph, ...]]:
    """Return the verdict over a compiled form of `model`, and its graphs when it is to be used. Blocks; never raises.

    Forks; call it from the thread that is evaluating the model. `examples` are golden rows.
    """
    begin = time.monotonic()
    try:
        if not isinstance(model, EstimatorModel):
            raise NotCompilable(f"an {model.name} is answered by {model.engine} as it is")
        _refuse_foreign(model)
        compilation, graphs = _decode(run_apart(lambda: _work(model, request, examples), request.seconds))
    except NotCompilable as error:
        compilation, graphs = Compilation(engine=None, reason=str(error)), ()
    except Unfinished as error:
        compilation, graphs = Compilation(engine=None, reason=str(error), is_final=False), ()
    return compilation.model_copy(update={"seconds": time.monotonic() - begin}), graphs


def _refuse_foreign(model: EstimatorModel) -> None:
    """Say early, before anything is forked or imported, that code nobody knows cannot be converted."""
    for part in all_parts(model.estimator):
        if hasattr(part, "fit") and not type(part).__module__.startswith(KNOWN_PACKAGES):
            raise NotCompilable(f"{type(part).__name__} is no estimator of scikit-learn, XGBoost or LightGBM")


def _work(model: EstimatorModel, request: CompileRequest, examples: Sequence[Batch]) -> bytes:
    graphs: list[Graph] = []
    try:
        from serving.host.compiling.prove import prove  # noqa: PLC0415  (imports onnxruntime, which starts a thread)

        graphs = _convert(model, request)
        compilation = prove(model, graphs, request.tolerance, examples)
    except NotCompilable as error:
        compilation, graphs = Compilation(engine=None, reason=one_line(str(error))), []
    except Exception as error:  # noqa: BLE001  (the model's own code, and three libraries)
        compilation, graphs = Compilation(engine=None, reason=f"compiling failed: {told(error)}"), []
    return _encode(compilation, graphs)


def _convert(model: EstimatorModel, request: CompileRequest) -> list[Graph]:
    from serving.host.compiling.convert import convert  # noqa: PLC0415  (imports onnxruntime too)

    first, *others = model.signature.methods
    whole = convert(model, max_nodes=request.nodes)
    if len(whole.content) > request.bytes:
        size = f"{len(whole.content) >> 20} MB"
        raise NotCompilable(f"the graph takes {size}, allowed are {request.bytes >> 20} MB (engine.compile_mb)")
    if not others or len(whole.content) > MOST_BYTES_TWICE:
        return [whole]
    return [convert(model, (first,), max_nodes=request.nodes), convert(model, others, max_nodes=request.nodes)]


def _encode(compilation: Compilation, graphs: Sequence[Graph]) -> bytes:
    head = orjson.dumps(
        {
            "compilation": compilation.model_dump(mode="json"),
            "graphs": [{"outputs": graph.outputs, "bytes": len(graph.content)} for graph in graphs],
        },
        option=orjson.OPT_NON_STR_KEYS,
    )
    return b"".join([_HEAD.pack(len(head)), head, *(graph.content for graph in graphs)])


def _decode(raw: bytes) -> tuple[Compilation, tuple[Graph, ...]]:
    (size,) = _HEAD.unpack_from(raw)
    start = _HEAD.size + size
    head = orjson.loads(raw[_HEAD.size : start])
    graphs = []
    for each in head["graphs"]:
        outputs = {method: tuple(names) for method, names in each["outputs"].items()}
        graphs.append(Graph(raw[start : start + each["bytes"]], outputs))
        start += each["bytes"]
    return Compilation.model_validate(head["compilation"]), tuple(graphs)
