"""All that is asked of the graphs of one version: parsed, written anew, bounded, and tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from serving.domain.compiled_form import MOST_ROWS, PIECE_BYTES, Graph, Guard, RunBounds
from serving.domain.errors import GraphRefused
from serving.domain.signature import Signature
from serving.host.graph_check.inputs_and_outputs import answer_bytes, declare_outputs, declared_inputs
from serving.host.graph_check.memory_analysis import analyse
from serving.host.graph_check.normal_form import normal_form

if TYPE_CHECKING:
    from serving.host.graph_check.operation import AbstractTensor
    from serving.host.graph_check.sizes import Size


class Checked(NamedTuple):
    """Graphs as the checker has written them, and what a run of any of them takes at most."""

    graphs: tuple[Graph, ...]
    bounds: RunBounds


class Bounded(NamedTuple):
    """The same before anything has run: `steps` is how many nodes of trees one row may visit, `tensors` what is known
    of each graph's tensors, by their names.
    """

    graphs: tuple[Graph, ...]
    bounds: RunBounds
    steps: int
    tensors: tuple[Mapping[str, AbstractTensor], ...]


def check(graphs: Sequence[Graph], signature: Signature, guard: Guard, most_rows: int) -> Checked:
    """Check the graphs of one version; raises GraphRefused with the first reason why they must not run in the server.

    Blocks; imports onnxruntime. For a process that may die of it.
    """
    from serving.host.graph_check.largest_run import Trial  # noqa: PLC0415  (onnxruntime starts a thread)

    bounded = bound(graphs, signature, most_rows)
    trial = Trial(bounded.graphs, signature, guard)
    trial.compare(bounded.graphs, bounded.tensors)
    measured = trial.measure(bounded.bounds, bounded.steps)
    return Checked(bounded.graphs, measured)


def bound(graphs: Sequence[Graph], signature: Signature, most_rows: int = MOST_ROWS) -> Bounded:
    """Return graphs as they are understood, and what they take by their shapes; raises GraphRefused.

    Runs nothing. Their times are not known then, and `rows` are those of the proof, as far as a run has room for them.
    """
    try:
        return _bound(graphs, signature, most_rows)
    except GraphRefused:
        raise
    except Exception as error:  # noqa: BLE001  (whatever a library makes of bytes that an enemy wrote)
        raise GraphRefused(f"it cannot be understood ({type(error).__name__})") from None


def _bound(graphs: Sequence[Graph], signature: Signature, most_rows: int) -> Bounded:
    models, answers, every = [], {}, []
    for graph in graphs:
        model = normal_form(graph.content)
        taken = analyse(model, declared_inputs(signature, model))
        declare_outputs(model, taken.outputs)
        answers.update(answer_bytes(signature, graph.outputs, taken))
        every.append(taken)
        models.append(Graph(model.SerializeToString(deterministic=True), dict(graph.outputs)))
    if sorted(method for graph in graphs for method in graph.outputs) != sorted(signature.methods):
        raise GraphRefused("its graphs do not answer every method once")
    taken_by_all = RunBounds(
        rows=max(1, min(most_rows, MOST_ROWS)),
        **_sizes("bytes", [taken.memory for taken in every]),
        **_sizes("texts", [taken.texts for taken in every]),
        answer_bytes=answers,
        seconds={},
    )
    rows = taken_by_all.rows_within(PIECE_BYTES)
    if not rows:
        size = f"{taken_by_all.bytes_of(1) >> 20} MB"
        raise GraphRefused(f"a run of one row could take {size}, at most {PIECE_BYTES >> 20} MB are given to it")
    bounds = taken_by_all.model_copy(update={"rows": rows})
    steps, tensors = max(taken.steps for taken in every), tuple(taken.tensors for taken in every)
    return Bounded(tuple(models), bounds, steps, tensors)


def _sizes(what: str, sizes: Sequence[Size]) -> dict[str, Any]:
    """Return the most of each part of some sizes: whichever of the graphs runs."""
    row, fixed = max(size.per_row for size in sizes), max(0, *(size.fixed for size in sizes))
    return {f"row_{what}": row, f"fixed_{what}": fixed}
