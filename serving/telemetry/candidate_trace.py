"""The trace of one candidate: staging, each gate, the check of its graphs, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from serving.domain.report import GateName, GateResult, Verdict
from serving.domain.text import one_line, without_values
from serving.telemetry.spans import (
    SPAN_ID_BITS,
    TRACE_ID_BITS,
    Attributes,
    AttributeValue,
    FinishedSpan,
    SpanClock,
    SpanEvent,
    make_id,
)

MOST_CHARACTERS = 200
_NS = 1_000_000_000
# the evidence of these may quote values of the rows that the model was tried with
_QUOTES_ROWS = frozenset({GateName.GOLDEN, GateName.FINITE, GateName.BATCHING, GateName.WARM_UP})


class CandidateTrace:
    """One candidate from its staging to its end. One thread at a time: a worker thread, then the reconciler's."""

    def __init__(self, model: str, version: str) -> None:
        self._trace_id, self._span_id = make_id(TRACE_ID_BITS), make_id(SPAN_ID_BITS)
        self._clock = SpanClock()
        self._begins_at_ns = self._ends_at_ns = self._clock.now_ns()
        self._attributes: dict[str, AttributeValue] = {"serving.model": model, "serving.version": version}
        self._parts: list[FinishedSpan] = []
        self._gates: list[int] = []  # their places among the parts
        self._events: list[SpanEvent] = []
        self._error: str | None = None

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Record the ``with`` block as a part of the candidate's way."""
        began = self._clock.now_ns()
        try:
            yield
        except Exception as error:
            self._add(part, began, self._clock.now_ns(), {"error.type": type(error).__name__}, _shorten(str(error)))
            raise
        self._add(part, began, self._clock.now_ns(), {})

    def add_gate(self, result: GateResult) -> None:
        """Add a gate that has just ended in another process, which has measured how long it took.

        It has ended by now, and before the next one began: see `make_spans`.
        """
        ends_at_ns = self._clock.now_ns()
        begins_at_ns = ends_at_ns - int(result.duration_seconds * _NS)
        evidence = _evidence_of(result)
        attributes: dict[str, AttributeValue] = {"serving.gate": result.gate, "serving.verdict": result.verdict.value}
        if evidence:
            attributes["serving.evidence"] = evidence
        error = None
        if result.verdict is Verdict.REFUSED:
            attributes["error.type"] = "refused"
            error = evidence or f"refused by {result.gate}"
        self._gates.append(len(self._parts))
        self._add(f"gate {result.gate}", begins_at_ns, ends_at_ns, attributes, error)

    def note(self, event: str, **attributes: AttributeValue) -> None:
        """Add an event that happens now."""
        self._events.append(SpanEvent(event, self._clock.now_ns(), attributes))

    def conclude(self, outcome: str, error: str | None, digest: str | None) -> None:
        """Set what became of the candidate; `error` names the gate or the kind of failure, None if it is ready."""
        self._attributes["serving.outcome"] = outcome
        if digest is not None:
            self._attributes["serving.digest"] = digest
        if error is not None:
            self._attributes["error.type"] = error
            self._error = f"{outcome}: {error}"

    def end(self) -> None:
        """End the candidate now."""
        self._ends_at_ns = self._clock.now_ns()

    @property
    def span_count(self) -> int:
        """Implement `FinishedTrace`."""
        return 1 + len(self._parts)

    def make_spans(self) -> list[FinishedSpan]:
        """Implement `FinishedTrace`: the candidate, then its parts in the order in which they ended.

        The news of a gate may come late. So each is moved back, from the last one on, to where the next one begins:
        none of them can overlap, end after its news, or begin before it did.
        """
        next_begins_at_ns = self._ends_at_ns
        for place in reversed(self._gates):
            gate = self._parts[place]
            late_ns = max(0, gate.ends_at_ns - next_begins_at_ns)
            next_begins_at_ns = gate.begins_at_ns - late_ns
            self._parts[place] = replace(gate, begins_at_ns=next_begins_at_ns, ends_at_ns=gate.ends_at_ns - late_ns)
        candidate = FinishedSpan(
            *("candidate", self._trace_id, self._span_id, 0),
            *(self._begins_at_ns, self._ends_at_ns, self._attributes),
            error=self._error,
            events=tuple(self._events),
        )
        return [candidate, *self._parts]

    def _add(
        self, name: str, begins_at_ns: int, ends_at_ns: int, attributes: Attributes, error: str | None = None
    ) -> None:
        ids = (self._trace_id, make_id(SPAN_ID_BITS), self._span_id)
        self._parts.append(FinishedSpan(name, *ids, begins_at_ns, ends_at_ns, attributes, error=error))


def _evidence_of(result: GateResult) -> str:
    """Return the evidence without anything that may be out of rows."""
    if result.gate in _QUOTES_ROWS:
        return ""
    if result.gate == GateName.COMPILE:
        return without_values(result.evidence, (), MOST_CHARACTERS)
    return _shorten(result.evidence)


def _shorten(text: str) -> str:
    return one_line(text, MOST_CHARACTERS)
