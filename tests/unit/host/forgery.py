"""Imitates hosts, also hostile ones: makes honest and forged frames from the definition of the protocol."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import orjson

from serving.domain.compiled_form import Compilation, Guard, ProvenRows
from serving.domain.environment import Needs
from serving.domain.provenance import Provenance
from serving.domain.report import GateName, GateResult, Verdict
from serving.domain.sandbox import LAYERS, Sandbox
from serving.domain.signature import Feature, ModelKind, Signature
from serving.domain.version import Format
from serving.wire.evaluation import CompileRequest, EvaluationFile, EvaluationRequest, Findings, NeedsFound, Preparation
from serving.wire.frames import FLAG_ARENA, MAGIC, PREFIX, FrameKind

WHOLE = Sandbox(active=LAYERS)
LACKING = Sandbox(active=LAYERS[:-1], missing={LAYERS[-1]: "Function not implemented"})
SIGNATURE = Signature(
    features=(Feature(name="a"), Feature(name="b")),
    methods=("predict", "predict_proba"),
    kind=ModelKind.CLASSIFIER,
    classes=(("no", "yes"),),
)
FILE = EvaluationFile(name="model.joblib", sha256="00", size=1, path="/nowhere")
GRAPH = b"graph"
STAYS = Compilation(engine=None, reason="slower")
COMPILED = Compilation(
    engine="onnx",
    reason="answers alike on 100 rows",
    rows=(ProvenRows(kind="random", rows=100),),
    guard=Guard(largest=10.0, known={0: ("x", 1.5, True)}),
    largest_difference=0.0,
    row_seconds=(1e-4, 1e-5),
    batch_seconds=(1e-3, 1e-4),
    batch_rows=64,
    graph_bytes=len(GRAPH),
    seconds=0.5,
)


class SentFrame(NamedTuple):
    """One frame in parts, so that each part can be forged. `header` is a JSON value, or bytes."""

    kind: int
    header: Any
    payload: bytes = b""
    request_id: int = 0
    flags: int = 0
    zero: int = 0
    magic: bytes = MAGIC
    header_bytes: int | None = None
    payload_bytes: int | None = None

    def pack(self) -> bytes:
        """Return the bytes of the frame; of a frame with forged lengths only the prefix."""
        header = self.header if isinstance(self.header, bytes) else orjson.dumps(self.header)
        sizes = (self.header_bytes, self.payload_bytes)
        prefix = PREFIX.pack(
            self.magic,
            self.kind,
            self.flags,
            self.zero,
            len(header) if sizes[0] is None else sizes[0],
            self.request_id,
            len(self.payload) if sizes[1] is None else sizes[1],
        )
        return prefix if sizes != (None, None) else prefix + header + self.payload


def make_request(**fields: Any) -> EvaluationRequest:
    """Return a request like those of the server; `fields` replace its fields."""
    usual: dict[str, Any] = {
        "model": "m",
        "version": "1",
        "digest": "sha256:00",
        "format": Format.JOBLIB,
        "main": FILE,
        "files": (FILE,),
        "quiet_seconds": 1.0,
        "compile": CompileRequest(bytes=1000),
    }
    return EvaluationRequest(**{**usual, **fields})


def make_honest_frames(
    asked: EvaluationRequest,
    sandbox: Sandbox = WHOLE,
    findings: Findings | None = None,
    *,
    provenance: Provenance | None = None,
    graphs: int = 0,
    refused_by: str | None = None,
) -> list[SentFrame]:
    """Return all frames that an honest host sends, from the first to the last."""
    frames = []
    preparation = Preparation(sandbox=sandbox, libraries={"python": "3.11"}, provenance=provenance)
    prepared = SentFrame(FrameKind.PREPARED, preparation.model_dump(mode="json"))
    is_prepared = False
    for gate in asked.gates[len(asked.prior) :]:
        frames.append(SentFrame(FrameKind.GATE_STARTED, {"gate": gate}))
        if gate == GateName.LOAD:
            frames.append(prepared)
            if asked.asks_needs:
                frames.append(SentFrame(FrameKind.NEEDS, NeedsFound(needs=Needs()).model_dump(mode="json")))
            is_prepared = True
        verdict = Verdict.REFUSED if gate == refused_by else Verdict.PASSED
        result = GateResult(gate=gate, verdict=verdict, evidence=f"{gate} was looked at")
        frames.append(SentFrame(FrameKind.GATE_RESULT, result.model_dump(mode="json")))
        if gate == refused_by:
            break
    if not is_prepared:
        frames.append(prepared)
    methods = [SIGNATURE.methods] if graphs == 1 else [(method,) for method in SIGNATURE.methods]
    for offered in methods[:graphs]:
        outputs = {method: [method] for method in offered}
        frames.append(SentFrame(FrameKind.GRAPH, {"outputs": outputs}, GRAPH))
    return [*frames, SentFrame(FrameKind.REPORT, (findings or make_findings(asked, graphs)).model_dump(mode="json"))]


def make_findings(asked: EvaluationRequest, graphs: int = 0) -> Findings:
    """Return the findings of an honest host."""
    is_off = asked.is_respawn or asked.compile.mode == "off"
    compilation = asked.compile.known or (COMPILED if graphs else STAYS)
    if graphs:
        compilation = compilation.model_copy(update={"graph_bytes": graphs * len(GRAPH)})
    engine = "onnx" if graphs else "sklearn"
    return Findings(
        signature=SIGNATURE, engine=engine, memory_bytes=1 << 20, compilation=None if is_off else compilation
    )


class FakeHost:
    """A host imitated by a thread that sends the bytes of `frames`, ignores what it receives, and then ends.

    Has the methods of a HostProcess. `code` is the exit code; None means that it does not end after the last byte.
    """

    scratch = None

    def __init__(self, frames: Sequence[bytes], code: int | None = 0, send: Callable[..., None] | None = None) -> None:
        self.socket, self._theirs = socket.socketpair()
        self._frames, self._code, self._send = frames, code, send or self._send_frames
        self.was_closed = threading.Event()
        self._received = bytearray()
        self._threads = [threading.Thread(target=self._send_and_end), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self.was_closed.set()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def returncode(self) -> int | None:
        return self._code

    def read_last_words(self) -> str | None:
        return None

    def join(self) -> list[int]:
        """End the host, and return the kinds of the frames that it has received."""
        self.close()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        self._theirs.close()
        return list(_read_kinds(bytes(self._received)))

    def _send_and_end(self) -> None:
        with contextlib.suppress(OSError):
            self._send(self._theirs)
            if self._code is not None:
                self._theirs.shutdown(socket.SHUT_WR)

    def _send_frames(self, sock: socket.socket) -> None:
        for frame in self._frames:
            sock.sendall(frame)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while received := self._theirs.recv(1 << 16):
                self._received += received


def _read_kinds(raw: bytes) -> Iterator[int]:
    while len(raw) >= PREFIX.size:
        _, kind, _, _, header_bytes, _, payload_bytes = PREFIX.unpack(raw[: PREFIX.size])
        yield kind
        raw = raw[PREFIX.size + header_bytes + payload_bytes :]


# --- forging ----------------------------------------------------------------------------------------------------------

GARBAGE: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 63, 1.5, -1e308, "", "x" * 5000, "\x1b[2J\x07", "a\nb", "\u202e", [], {}, [[]], {"a": 1},
    [None] * 50,
)  # fmt: skip
RAW_HEADERS = (b"", b"{", b"\xff", b"null", b"[]", b'"x"', b"{}", b'{"a":NaN}', b'{"a":1e999}', b"[" * 200, b"9" * 200)


def forge_frame(frame: SentFrame, bounds: tuple[int, int]) -> Iterator[tuple[str, SentFrame]]:
    """Yield every forgery of one frame: of each part of its prefix, of its header as bytes, of each value in it."""
    for kind in [*FrameKind, 0, 9, 255]:
        if kind != frame.kind:
            yield f"kind {kind}", frame._replace(kind=int(kind))
    yield "magic", frame._replace(magic=b"SVH2")
    for flags in (FLAG_ARENA, 2, 255):
        yield f"flags {flags}", frame._replace(flags=flags)
    yield "zero", frame._replace(zero=1)
    for request_id in (1, (1 << 64) - 1):
        yield f"request {request_id}", frame._replace(request_id=request_id)
    for size in (bounds[0] + 1, (1 << 32) - 1):
        yield f"header of {size}", frame._replace(header_bytes=size)
    for size in (bounds[1] + 1, 1 << 40, (1 << 64) - 1):
        yield f"payload of {size}", frame._replace(payload_bytes=size)
    for raw in RAW_HEADERS:
        yield f"header {raw[:10]!r}", frame._replace(header=raw)
    for where, header in _forge_values(frame.header):
        yield f"header with {where}", frame._replace(header=header)


def _forge_values(header: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield `header` with each value at any depth removed or replaced by garbage, and with one more key."""
    for path in _list_paths(header):
        for garbage in GARBAGE:
            changed = deepcopy(header)
            place, last = _find_place(changed, path)
            place[last] = garbage
            yield f"{path} = {garbage!r:.20}", changed
        changed = deepcopy(header)
        place, last = _find_place(changed, path)
        del place[last]
        yield f"no {path}", changed
    yield "another key", {**header, "more": 1}


def _list_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, each in items:
        yield from _list_paths(each, (*path, key))


def _find_place(value: Any, path: tuple[Any, ...]) -> tuple[Any, Any]:
    for key in path[:-1]:
        value = value[key]
    return value, path[-1]
