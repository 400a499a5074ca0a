"""The whole check of the graphs of one version: parse them, write them anew, bound them, and run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from serving.domain.compiled_form import MOST_ROWS, PIECE_BYTES, Graph, Guard, RunBounds
from serving.domain.errors import GraphRefused
from serving.domain.signature import Signature
from serving.host.graph_check.inputs_and_outputs import check_inputs, count_answer_bytes, declare_outputs
from serving.host.graph_check.memory_analysis import analyse_memory
from serving.host.graph_check.normal_form import write_normal_form

if TYPE_CHECKING:
    from serving.host.graph_check.operation import AbstractTensor
    from serving.host.graph_check.sizes import Size


class CheckedGraphs(NamedTuple):
    """Graphs as the checker has written them, and the limits of a run of any of them."""

    graphs: tuple[Graph, ...]
    bounds: RunBounds


class BoundedGraphs(NamedTuple):
    """Graphs and their limits before anything has run.

    `steps` is the largest number of tree nodes that one row may visit. `tensors` describes the tensors of each graph,
    by their names.
    """

    graphs: tuple[Graph, ...]
    bounds: RunBounds
    steps: int
    tensors: tuple[Mapping[str, AbstractTensor], ...]


def check_graphs(graphs: Sequence[Graph], signature: Signature, guard: Guard, most_rows: int) -> CheckedGraphs:
    """Check the graphs of one version; raises GraphRefused with the first reason why the server must not run them.

    Blocks; imports onnxruntime. Call it only in a process that may die: a hostile graph may end it.
    """
    from serving.host.graph_check.largest_run import LargestRun  # noqa: PLC0415  (onnxruntime starts a thread)

    bounded = bound_graphs(graphs, signature, most_rows)
    run = LargestRun(bounded.graphs, signature, guard)
    run.compare_shapes(bounded.graphs, bounded.tensors)
    measured = run.measure_bounds(bounded.bounds, bounded.steps)
    return CheckedGraphs(bounded.graphs, measured)


def bound_graphs(graphs: Sequence[Graph], signature: Signature, most_rows: int = MOST_ROWS) -> BoundedGraphs:
    """Return the graphs written anew, and their limits according to their shapes; raises GraphRefused.

    Runs nothing, so the times and `session_bytes` are not known. `rows` is the number of rows of the proof, or as many
    as a run has memory for.
    """
    try:
        return _bound_graphs(graphs, signature, most_rows)
    except GraphRefused:
        raise
    except Exception as error:  # noqa: BLE001  (a library may raise anything for bytes that an enemy wrote)
        raise GraphRefused(f"it cannot be understood ({type(error).__name__})") from None


def _bound_graphs(graphs: Sequence[Graph], signature: Signature, most_rows: int) -> BoundedGraphs:
    models, answers, analyses = [], {}, []
    for graph in graphs:
        model = write_normal_form(graph.content)
        analysis = analyse_memory(model, check_inputs(signature, model))
        declare_outputs(model, analysis.outputs)
        answers.update(count_answer_bytes(signature, graph.outputs, analysis))
        analyses.append(analysis)
        models.append(Graph(model.SerializeToString(deterministic=True), dict(graph.outputs)))
    if sorted(method for graph in graphs for method in graph.outputs) != sorted(signature.methods):
        raise GraphRefused("its graphs do not answer every method once")
    taken_by_all = RunBounds(
        rows=max(1, min(most_rows, MOST_ROWS)),
        **_find_largest_sizes("bytes", [analysis.memory for analysis in analyses]),
        **_find_largest_sizes("texts", [analysis.texts for analysis in analyses]),
        answer_bytes=answers,
        seconds={},
        session_bytes=0,
    )
    rows = taken_by_all.rows_within(PIECE_BYTES)
    if not rows:
        size = f"{taken_by_all.bytes_of(1) >> 20} MB"
        raise GraphRefused(f"a run of one row could take {size}, at most {PIECE_BYTES >> 20} MB are given to it")
    bounds = taken_by_all.model_copy(update={"rows": rows})
    steps, tensors = max(analysis.steps for analysis in analyses), tuple(analysis.tensors for analysis in analyses)
    return BoundedGraphs(tuple(models), bounds, steps, tensors)


def _find_largest_sizes(what: str, sizes: Sequence[Size]) -> dict[str, Any]:
    """Return the largest `per_row` and `fixed` of some sizes, which hold for any of the graphs."""
    row, fixed = max(size.per_row for size in sizes), max(0, *(size.fixed for size in sizes))
    return {f"row_{what}": row, f"fixed_{what}": fixed}
