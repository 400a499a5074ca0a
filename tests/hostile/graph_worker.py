"""A process that checks graphs and then uses them as a server would: ``python -m tests.hostile.graph_worker``.

Reads cases from its standard input, each a JSON line and the bytes of a graph, and tells what became of each in one
line: ``refused REASON`` by the checker, ``served`` when it was run with all kinds of rows within its bounds, ``failed
REASON`` when that was not so. ``checking`` comes before the check and ``serving`` after it, so that who is told what
came before its death knows in which of the two it died.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from serving.domain.compiled_form import Graph, Guard, RunBounds
from serving.domain.errors import GraphRefused, ModelFailed
from serving.domain.signature import Dtype, Feature, Signature
from serving.host.graph_check.graph_check import check_graphs
from serving.host.graph_check.inputs_and_outputs import check_inputs
from serving.host.graph_check.memory_analysis import analyse_memory
from serving.host.graph_check.normal_form import write_normal_form
from serving.plane.graph import GraphSession, list_number_inputs, make_feed, open_session
from serving.rows.batch import Batch, Column

SLACK_BYTES = 48 << 20  # what the allocator keeps, and the rows themselves
NUMBERS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    777.0,
    5e-324,
    1e-310,
    1.7e308,
    -1.7e308,
    2.0**31,
    -(2.0**63),
    float("nan"),
    float("inf"),
)
CELLS = {
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16), "f"),
    **dict.fromkeys((TensorProto.INT8, TensorProto.INT32, TensorProto.INT64), "i"),
    TensorProto.UINT8: "u",
    TensorProto.BOOL: "b",
    TensorProto.STRING: "O",
}
TEXTS = ("", "a", "red", "\x00null", "9", "x" * 1000, "ü" * 50, "nan")


def main() -> None:
    """Take cases until there are no more."""
    source = sys.stdin.buffer
    while line := source.readline():
        case = json.loads(line)
        graph = Graph(source.read(case["bytes"]), case["outputs"])
        tell("checking")
        try:
            signature = Signature.model_validate(case["signature"])
            checked = check_graphs([graph], signature, Guard(), 4096)
        except GraphRefused as error:
            tell(f"refused {error}")
            continue
        tell("serving")
        tell(serve(checked.graphs[0], signature, checked.bounds))


def tell(what: str) -> None:
    """Write one line, at once."""
    print(what.replace("\n", " "), flush=True)


def serve(graph: Graph, signature: Signature, bounds: RunBounds) -> str:
    """Run a graph with as many rows as it may, and with few, of all kinds; say how that went."""
    wrong = wrong_shape(graph, signature)
    if wrong is not None:
        return f"failed {wrong}"
    session = GraphSession(graph, bounds.rows)
    dice = np.random.default_rng(bounds.row_bytes)
    for rows in dict.fromkeys((1, 2, 3, min(777, bounds.rows), bounds.rows)):
        for hostile in (False, True):
            batch = rows_of(signature, rows, dice, is_hostile=hostile)
            longest = max((len(text.encode()) for text in TEXTS), default=0)
            for method in session.methods:
                before = reset_peak()
                try:
                    prediction = session.answer(method, batch)
                except ModelFailed:
                    continue
                finally:
                    taken = peak() - before
                most = bounds.bytes_of(rows, longest) + SLACK_BYTES + 2 * rows * bounds.answer_bytes[method]
                if taken > most:
                    return f"failed {method} of {rows} rows takes {taken >> 20} MB, the bound is {most >> 20} MB"
                if any(len(tensor) != rows for tensor in prediction.tensors):
                    return f"failed {method} of {rows} rows gives {[len(tensor) for tensor in prediction.tensors]}"
    return "served"


def wrong_shape(graph: Graph, signature: Signature) -> str | None:
    """Say which tensor anywhere in a graph is of another shape than the analysis says, None where all are alike."""
    model = write_normal_form(graph.content)
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    known = analyse_memory(model, check_inputs(signature, model)).outputs
    session = open_session(model.SerializeToString(), is_optimized=False)
    for rows in (1, 2, 5):
        batch = rows_of(signature, rows, np.random.default_rng(0), is_hostile=False)
        try:
            values = session.run(names, make_feed(batch, list_number_inputs(session)))
        except Exception:  # noqa: BLE001  (the graph refuses these rows)
            continue
        for name, value in zip(names, values, strict=True):
            wanted = tuple(size.compute_for(rows) for size in known[name].shape)
            found = np.asarray(value)
            if found.shape != wanted or CELLS[known[name].dtype] != found.dtype.kind:
                return f"{name} is {found.dtype}{found.shape} for {rows} rows, the analysis says {wanted}"
    return None


def rows_of(signature: Signature, rows: int, dice: np.random.Generator, *, is_hostile: bool) -> Batch:
    """Return rows of ordinary numbers and texts, or of those that break things."""

    def column(feature: Feature) -> Column:
        if feature.dtype is Dtype.STRING:
            return dice.choice(TEXTS if is_hostile else ("red", "green"), rows).tolist()
        if feature.dtype is Dtype.BOOL:
            return dice.random(rows) > 0.5
        return dice.choice(NUMBERS, rows) if is_hostile else dice.normal(size=rows)

    columns = [column(feature) for feature in signature.features]
    if all(feature.dtype is Dtype.NUMBER for feature in signature.features):
        return Batch(rows, matrix=np.ascontiguousarray(np.column_stack(columns)))
    return Batch(rows, columns=tuple(columns))


def reset_peak() -> int:
    """Forget the most memory this process has had, and return how much it has now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """Return the most memory this process has had since, in bytes."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
