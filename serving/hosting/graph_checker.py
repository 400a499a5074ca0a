"""The server's side of a checker: start it, send it graphs, and receive the graphs that it has written anew."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import NoReturn

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from serving.domain.compiled_form import PIECE_BYTES, Compilation, Graph, RunBounds
from serving.domain.errors import GraphRefused, HostDied, HostFailed, ProtocolError
from serving.domain.sandbox import Sandbox
from serving.domain.signature import Signature
from serving.domain.text import one_line
from serving.hosting.zygote import HostProcess, Zygote
from serving.wire.frames import PREFIX, Frame, FrameKind, Prefix, decode_object
from serving.wire.graph_requests import CheckerRequest, CheckRequest
from serving.wire.stream import FrameReader, StreamCut, TimedSocket, send_frame

START_SECONDS = 30.0
MORE_BYTES = 64 << 10
MOST_REASON_CHARACTERS = 500


class _CheckedHeader(BaseModel):
    """The header of a CHECKED frame."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bounds: RunBounds
    bytes: tuple[int, ...]


class GraphChecker:
    """A process that checks the graphs of one version. Worker threads only; to make one blocks for the fork (20 ms).

    The process imports its libraries while the caller goes on. Always call `close`.
    """

    def __init__(self, zygote: Zygote, memory_bytes: int) -> None:
        self._process: HostProcess = zygote.spawn()
        request = CheckerRequest(memory_bytes=memory_bytes, scratch=self._process.scratch)
        self._memory_bytes = memory_bytes
        try:
            self._process.socket.settimeout(START_SECONDS)
            send_frame(self._process.socket, FrameKind.CHECKER, 0, request.model_dump_json().encode())
        except OSError as error:
            self._process.close()
            raise HostFailed(f"no checker of graphs could be started: {error.strerror or error}") from None

    def kill(self) -> None:
        """Kill the process; calls that wait for it fail. Any thread."""
        self._process.kill()

    def close(self) -> None:
        """Kill the process, and free its sockets and memory."""
        self._process.close()

    def check(
        self,
        graphs: Sequence[Graph],
        signature: Signature,
        compilation: Compilation,
        deadline_seconds: float,
    ) -> tuple[tuple[Graph, ...], RunBounds]:
        """Return the graphs as the process wrote them anew, and their bounds. Blocks.

        Raises GraphRefused when they must not run in the server: the process gave a reason, died while it checked them,
        missed the deadline, or broke the protocol. HostDied and HostFailed say nothing about the graphs.
        """
        source = TimedSocket(self._process.socket, time.monotonic() + START_SECONDS)
        try:
            self._require_sandbox(source)
            source.ends_at = time.monotonic() + deadline_seconds
            self._send_request(graphs, signature, compilation, deadline_seconds)
            frame = _receive_frame(source, _bound_rewritten_bytes(graphs))
            return _decode_answer(frame, graphs, compilation, self._memory_bytes)
        except TimeoutError:
            limit = f"{deadline_seconds:g} s (engine.compile_seconds)"
            raise GraphRefused(f"its check was not finished after {limit}", is_final=False) from None
        except (StreamCut, OSError):
            self._raise_end()
        except (ProtocolError, ValidationError) as error:
            raise GraphRefused(f"its check ended with an invalid answer ({type(error).__name__})") from None
        except MemoryError:
            raise HostFailed("the server has no memory left for a graph") from None

    def _require_sandbox(self, source: TimedSocket) -> None:
        """Refuse a process whose sandbox is not whole. It has not seen a graph yet, so its answer can be trusted."""
        frame = _receive_frame(source, 0)
        if frame.kind is not FrameKind.CHECKER_READY:
            raise ProtocolError(f"{frame.kind.name} from a checker, CHECKER_READY was expected")
        held = Sandbox.model_validate_json(bytes(frame.header))
        if not held.is_whole:
            raise GraphRefused(f"a layer of the sandbox is missing around the process that would check it: {held}")

    def _send_request(
        self, graphs: Sequence[Graph], signature: Signature, compilation: Compilation, seconds: float
    ) -> None:
        request = CheckRequest(
            signature=signature,
            guard=compilation.guard,
            most_rows=compilation.most_rows,
            graphs=tuple((dict(graph.outputs), len(graph.content)) for graph in graphs),
        )
        self._process.socket.settimeout(seconds)
        header = orjson.dumps(request.model_dump(mode="json"), option=orjson.OPT_NON_STR_KEYS)
        send_frame(self._process.socket, FrameKind.CHECK, 0, header, [graph.content for graph in graphs])

    def _raise_end(self) -> NoReturn:
        code = self._process.returncode()
        if code is None or code == -signal.SIGKILL:
            raise HostDied("the process that checks graphs was killed from outside", code)
        how = f"died with {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        raise GraphRefused(f"the process that checks it {how}", is_final=False)


def _receive_frame(source: TimedSocket, most_bytes: int) -> Frame:
    def check_prefix(prefix: Prefix) -> None:
        if (
            prefix.kind not in (FrameKind.CHECKER_READY, FrameKind.CHECKED, FrameKind.REFUSAL)
            or prefix.payload_bytes > most_bytes
        ):
            raise ProtocolError(f"{prefix.kind.name} with {prefix.payload_bytes} bytes from a checker")

    frame = FrameReader(source, None, PREFIX.size, check_prefix).receive()
    if frame is None:
        raise StreamCut("the checker is gone")
    return frame


def _bound_rewritten_bytes(graphs: Sequence[Graph]) -> int:
    """Return the most bytes that rewritten graphs may have: hardly more than the originals."""
    return sum(len(graph.content) for graph in graphs) + MORE_BYTES


def _decode_answer(
    frame: Frame, graphs: Sequence[Graph], compilation: Compilation, memory_bytes: int
) -> tuple[tuple[Graph, ...], RunBounds]:
    if frame.kind is FrameKind.REFUSAL:
        detail = str(decode_object(frame.header).get("detail"))
        raise GraphRefused(one_line(detail, MOST_REASON_CHARACTERS))
    header = _CheckedHeader.model_validate_json(bytes(frame.header))
    methods = {method for graph in graphs for method in graph.outputs}
    bounds = header.bounds
    is_sound = (
        frame.kind is FrameKind.CHECKED
        and len(header.bytes) == len(graphs)
        and min(header.bytes) > 0
        and sum(header.bytes) == len(frame.payload)
        and bounds.rows <= max(1, compilation.most_rows)
        and bounds.bytes_of(bounds.rows) <= PIECE_BYTES
        and sum(header.bytes) <= bounds.session_bytes <= memory_bytes
        and bounds.answer_bytes.keys() == bounds.seconds.keys() == methods
    )
    if not is_sound:
        raise ProtocolError("an impossible result of a check")
    made, start = [], 0
    for graph, size in zip(graphs, header.bytes, strict=True):
        made.append(Graph(frame.payload[start : start + size], graph.outputs))
        start += size
    return tuple(made), bounds
