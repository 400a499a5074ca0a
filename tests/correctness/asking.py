"""Asks one model everything, and writes down what is not as the model itself says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from serving.domain.signature import METHODS
from tests.correctness.answers import Comparison, Expected, ask_itself, compare
from tests.correctness.client import Clients
from tests.correctness.material import Material, cells
from tests.correctness.wires import UNTYPED, WIRES, Asked, Request, Wire, requests

ALONE, CROWDED, EDGES = (12, 4), (96, 48), (48, 12)  # of the default method, and of each of the others
Methods = Mapping[str, Callable[[Any], Any]]


@dataclass
class Finding:
    """What came of one model: how many rows and answers were compared, what differs, and what was refused and why."""

    kind: str
    name: str
    engine: str = ""
    refused: str = ""
    rows: int = 0
    answers: int = 0
    inexact: int = 0
    largest: float = 0.0
    unrepeatable: int = 0
    differences: list[str] = field(default_factory=list)
    guarded: Counter[str] = field(default_factory=Counter)
    wires: Counter[str] = field(default_factory=Counter)

    def note(self, compared: Comparison, where: str, given: Any, wanted: Expected, row: Any) -> None:
        """Count a comparison and keep its first difference with all that is needed to see it again."""
        self.answers += compared.exact + compared.close + compared.wrong
        self.inexact += compared.close
        self.largest = max(self.largest, 0.0 if compared.wrong else compared.largest)
        if compared.wrong:
            right = wanted.values[max(compared.first, 0)].tolist()
            self.differ(
                f"{where}: {compared.wrong} of {len(wanted.values)} rows, such as {row!r:.300}: got {given!r:.200}, "
                f"right is {right!r:.200}"
            )

    def differ(self, what: str) -> None:
        """Keep a difference."""
        self.differences.append(what)


@dataclass(frozen=True)
class Served:
    """A model that is asked: its name on the server, its signature there, its engine, and what it says itself."""

    model: str
    signature: Mapping[str, Any]
    is_compiled: bool
    itself: Methods
    may_lack: frozenset[str] = frozenset()

    def asked(self, method: str, rows: list[Any]) -> Asked:
        """Make a question."""
        names = tuple(feature["name"] for feature in self.signature["features"])
        return Asked(self.model, method, names, self.signature["container"], rows)


def methods_of(estimator: Any) -> Methods:
    """Return the methods of an estimator that answer rows."""
    return {name: getattr(estimator, name) for name in METHODS if hasattr(estimator, name)}


def ask_everything(clients: Clients, served: Served, material: Material, finding: Finding) -> None:
    """Ask one model by every method, in every protocol, alone, at the edges, and in a crowd. Blocks."""
    rows = cells(material.rows)
    finding.rows += len(rows) + len(material.edges)
    for method in served.signature["methods"]:
        itself = served.itself.get(method)
        if itself is None:
            finding.differ(f"{method}: offered, and the model has no such method")
            continue
        expected = ask_itself(itself, material.rows, len(rows))
        if isinstance(expected, Exception):
            _refused_together(clients, served.asked(method, rows), expected, finding)
            continue
        again = ask_itself(itself, material.rows, len(rows))
        if isinstance(again, Exception) or compare(expected, again.values.tolist()).wrong:
            finding.unrepeatable += 1
            continue
        asked = served.asked(method, rows)
        _every_protocol(clients, asked, expected, finding, is_compiled=served.is_compiled)
        taken = _edges(clients, served, method, material, expected.scale, finding)
        if taken:
            _edges_in_every_protocol(clients, served, method, taken, finding)
        _alone(clients, served, method, material, rows, expected.scale, finding)
        _in_a_crowd(clients, served, method, material, rows, expected, finding)
    lost = [name for name in served.itself if name not in (*served.signature["methods"], *served.may_lack)]
    for method in lost:
        if not isinstance(ask_itself(served.itself[method], material.rows, len(rows)), Exception):
            finding.differ(f"{method}: the model has it, and it is not offered")


def _refused_together(clients: Clients, asked: Asked, error: Exception, finding: Finding) -> None:
    status, _, _ = clients.ask(_json(asked))
    if status == 200:
        finding.differ(f"JSON {asked.method}: {len(asked.rows)} rows were answered, the model says {error!r:.150}")


def _json(asked: Asked) -> Request:
    found = WIRES[0].make(asked)
    assert found is not None
    return found


def _every_protocol(clients: Clients, asked: Asked, expected: Expected, finding: Finding, *, is_compiled: bool) -> None:
    for wire, request in requests(asked):
        if not expected.values.shape[1] and wire.name in ("CSV", "Arrow"):
            continue  # columns are all that they have
        status, headers, body = clients.ask(request)
        if status == 200:
            _compare(wire, asked, wire.read(headers, body), expected, finding)
        elif not _is_no_form(status, expected, _reason(body)):
            _refused(is_compiled, f"{wire.name} {asked.method}", asked.rows, status, body, finding)
    found = clients.grpc(asked)
    if isinstance(found, list):
        _compare(GRPC, asked, found, expected, finding)
    elif found is not None and not _is_no_form(406, expected, found):
        body = json.dumps({"error": found}).encode()
        _refused(is_compiled, f"gRPC {asked.method}", asked.rows, 400, body, finding)


_OTHER_TYPE = re.compile(r"expected (a number|a string|true or false), got (the string|the number|true|false)")
GRPC = Wire("gRPC", lambda asked: None, lambda headers, body: [])


def _is_no_form(status: int, expected: Expected, reason: str) -> bool:
    """Say whether it is the answer that has no form: values of several kinds, or outputs of several widths."""
    is_ragged = status == 406 and "arrays of different" in reason
    kinds = {type(each) for row in expected.values.tolist() for each in row}
    return is_ragged or (status in (400, 406, 500) and len(kinds) > 1)


def _compare(wire: Wire, asked: Asked, given: list[Any], expected: Expected, finding: Finding) -> None:
    if wire.name == "CSV":
        given = [_as_wanted(row, own) for row, own in zip(given, expected.values.tolist(), strict=False)]
    compared = compare(expected, given, is_strict=wire.name not in UNTYPED)
    finding.wires[wire.name] += compared.exact + compared.close + compared.wrong
    at = max(compared.first, 0)
    row = asked.rows[at] if at < len(asked.rows) else None
    finding.note(compared, f"{wire.name} {asked.method}", given[at] if at < len(given) else given[:1], expected, row)


def _as_wanted(row: list[str], wanted: list[Any]) -> list[Any]:
    """Read texts of CSV as what they should be; what cannot be stays a text."""
    found: list[Any] = []
    for text, own in zip(row, wanted, strict=False):
        try:
            if isinstance(own, (bool, np.bool_)):
                found.append({"true": True, "false": False}[text.lower()])
            elif isinstance(own, (int, np.integer)):
                found.append(int(text))
            elif isinstance(own, (float, np.floating)):
                found.append(float(text) if text else None)
            else:
                found.append(text)
        except (ValueError, KeyError):
            found.append(text)
    return found + list(row[len(wanted) :])


def _edges(
    clients: Clients, served: Served, method: str, material: Material, scale: float, finding: Finding
) -> list[tuple[Any, Expected]]:
    """Ask each edge row alone; return those that both answer, as the model takes them."""
    taken = []
    count = EDGES[method != served.signature["methods"][0]]
    for edge in material.edges[:: max(1, -(-len(material.edges) // count))]:
        row = cells(edge)[0]
        expected = ask_itself(served.itself[method], edge, 1)
        if isinstance(expected, Expected):
            expected = replace(expected, scale=scale)
        status, headers, body = clients.ask(_json(served.asked(method, [row])))
        where = f"JSON {method}, edge"
        if status != 200:
            if not isinstance(expected, Exception):
                _refused(served.is_compiled, where, row, status, body, finding, expected)
        elif isinstance(expected, Exception):
            finding.differ(f"{where}: {row!r:.300} is answered {body[:200]!r}, the model says {expected!r:.150}")
        else:
            given = WIRES[0].read(headers, body)
            finding.note(compare(expected, given), where, given, expected, row)
            taken.append((edge, expected))
    return taken


def _refused(
    is_compiled: bool,
    where: str,
    row: Any,
    status: int,
    body: bytes,
    finding: Finding,
    expected: Expected | None = None,
) -> None:
    reason = _reason(body)
    is_guarded = is_compiled and re.search(r"the model takes at (most|least)|which the model does not know", reason)
    is_inexact = "rounded" in reason or "2**53" in reason
    is_silent = finding.kind == "ONNX files" and "does not take null" in reason
    if status in (400, 422) and expected is not None and _OTHER_TYPE.search(reason):
        finding.guarded["a cell of another type than the feature takes, which is never converted"] += 1
        return
    is_prediction = " transform" not in where  # which NaN is no answer of
    is_passed_on = is_prediction and "does not take null" in reason and expected is not None and _has_nan(expected)
    if status in (400, 422) and is_passed_on:
        finding.guarded["null that the model would answer with NaN"] += 1
    elif status in (400, 422) and (is_guarded or is_inexact or is_silent):
        finding.guarded[_sort(reason)] += 1
    else:
        finding.differ(f"{where}: {row!r:.300} is refused ({status}: {reason}), the model answers it")


def _has_nan(expected: Expected) -> bool:
    return any(isinstance(value, float) and np.isnan(value) for value in expected.values.ravel().tolist())


def _sort(reason: str) -> str:
    if "the model takes at" in reason:
        return "a number beyond what was proved of the compiled form"
    if "does not know" in reason:
        return "a value beyond those that were proved of the compiled form"
    if "does not take null" in reason:
        return "null for an ONNX graph, which does not say whether it takes missing values"
    return "an integer that the model would get rounded"


def _reason(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return repr(body[:200])
    return str(document.get("detail") or document.get("error") or document.get("message"))[:300]


def _edges_in_every_protocol(
    clients: Clients, served: Served, method: str, taken: list[tuple[Any, Expected]], finding: Finding
) -> None:
    """Ask for all edge rows together; compare each with what the model says to it alone, or to them all."""
    edges = [edge for edge, _ in taken]
    whole = _together([own for _, own in taken])
    if whole is None:
        return
    joined = _joined(edges)
    if joined is not None:
        own = ask_itself(served.itself[method], joined, len(edges))
        if isinstance(own, Exception):
            return
        if compare(whole, own.values.tolist()).wrong:  # it looks at other rows, too
            whole = replace(own, scale=whole.scale)
    asked = served.asked(method, [cells(edge)[0] for edge in edges])
    _every_protocol(clients, asked, whole, finding, is_compiled=served.is_compiled)


def _joined(edges: list[Any]) -> Any:
    """Return the rows in one container; None where that would change what they hold."""
    if all(isinstance(edge, np.ndarray) for edge in edges):
        return np.vstack(edges)
    if all(isinstance(edge, pd.DataFrame) and edge.dtypes.equals(edges[0].dtypes) for edge in edges):
        return pd.concat(edges, ignore_index=True)
    return None


def _together(parts: list[Expected]) -> Expected | None:
    if len({(part.values.shape[1], part.values.dtype) for part in parts}) != 1:
        return None
    return Expected(np.vstack([p.values for p in parts]), min(p.width for p in parts), min(p.scale for p in parts))


def _alone(
    clients: Clients,
    served: Served,
    method: str,
    material: Material,
    rows: list[Any],
    scale: float,
    finding: Finding,
) -> None:
    for place in np.linspace(0, len(rows) - 1, ALONE[method != served.signature["methods"][0]]).astype(int).tolist():
        expected = ask_itself(served.itself[method], material.one(place), 1)
        if isinstance(expected, Expected):
            expected = replace(expected, scale=scale)
        status, headers, body = clients.ask(_json(served.asked(method, [rows[place]])))
        if status == 200 and not isinstance(expected, Exception):
            given = WIRES[0].read(headers, body)
            finding.note(compare(expected, given), f"JSON {method}, alone", given, expected, rows[place])
        elif status == 200:
            finding.differ(f"JSON {method}, alone: {rows[place]!r:.300} is answered, the model says {expected!r:.150}")
        elif not isinstance(expected, Exception):
            _refused(served.is_compiled, f"JSON {method}, alone", rows[place], status, body, finding)


def _in_a_crowd(
    clients: Clients,
    served: Served,
    method: str,
    material: Material,
    rows: list[Any],
    expected: Expected,
    finding: Finding,
) -> None:
    """Ask for one row per request from 48 clients; a row that differs from the whole may still be as it is alone."""
    places = [(7 * number) % len(rows) for number in range(CROWDED[method != served.signature["methods"][0]])]
    replies = clients.crowd([_json(served.asked(method, [rows[place]])) for place in places])
    for place, (status, headers, body) in zip(places, replies, strict=True):
        where = f"JSON {method}, among 48 clients"
        if status != 200:
            if not isinstance(ask_itself(served.itself[method], material.one(place), 1), Exception):
                _refused(served.is_compiled, where, rows[place], status, body, finding)
            continue
        given, own = WIRES[0].read(headers, body), expected.row(place)
        compared = compare(own, given)
        if compared.wrong:
            alone = ask_itself(served.itself[method], material.one(place), 1)
            if not isinstance(alone, Exception):
                own = replace(alone, scale=expected.scale)
                compared = compare(own, given)
        finding.note(compared, where, given, own, rows[place])
        finding.wires["48 clients"] += 1


def iterate(found: Finding) -> Iterator[str]:
    """Yield a line for each difference, with the model in front."""
    for difference in found.differences:
        yield f"{found.kind} / {found.name}: {difference}"
