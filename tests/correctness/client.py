"""Clients of one server: one connection that waits, a crowd that does not, and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from tests.correctness.wires import Asked, Request, by_row, raw_values, tensors

CROWD = 48
Reply = tuple[int, dict[str, str], bytes]


class Clients:
    """`ask` sends one request, `crowd` many from 48 connections, `grpc` one call. All block; one thread."""

    def __init__(self, url: str, grpc_address: str | None) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 0)
        self._loop = asyncio.new_event_loop()
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._grpc_address = grpc_address
        self._channel: Any = None

    def ask(self, request: Request) -> Reply:
        """Send one request and return status, headers and body."""
        return self._loop.run_until_complete(self._all([request], 1))[0]

    def crowd(self, requests: Sequence[Request]) -> list[Reply]:
        """Send them all from 48 clients at once and return the replies in their order."""
        return self._loop.run_until_complete(self._all(requests, CROWD))

    async def _all(self, requests: Sequence[Request], count: int) -> list[Reply]:
        while len(self._streams) < count:
            self._streams.append(await asyncio.open_connection(self._host, self._port, limit=1 << 26))
        waiting = list(enumerate(requests))[::-1]
        found: dict[int, Reply] = {}

        async def work(place: int) -> None:
            while waiting:
                number, request = waiting.pop()
                found[number] = await self._exchange(place, request)

        await asyncio.gather(*(work(place) for place in range(count)))
        return [found[number] for number in range(len(requests))]

    async def _exchange(self, place: int, request: Request) -> Reply:
        try:
            return await self._send(place, request)
        except (asyncio.IncompleteReadError, ConnectionError) as error:  # the server closes connections that are idle
            if getattr(error, "partial", b""):
                raise
            self._streams[place] = await asyncio.open_connection(self._host, self._port, limit=1 << 26)
            return await self._send(place, request)

    async def _send(self, place: int, request: Request) -> Reply:
        reader, writer = self._streams[place]
        head = "\r\n".join((f"POST {request.path} HTTP/1.1", "Host: localhost", *request.headers))
        writer.write(f"{head}\r\nContent-Length: {len(request.body)}\r\n\r\n".encode() + request.body)
        await writer.drain()
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines[1:] if line)
        headers = {name.lower(): value.strip() for name, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            writer.close()
            self._streams[place] = await asyncio.open_connection(self._host, self._port, limit=1 << 26)
        return int(lines[0].split()[1]), headers, body

    def grpc(self, asked: Asked) -> list[Any] | str | None:
        """Ask over gRPC; return rows, the error, or None where there is no gRPC or it cannot carry the rows."""
        found = tensors(asked, may_be_null=False)
        if self._grpc_address is None or found is None:
            return None
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        if self._channel is None:
            self._channel = grpc.insecure_channel(self._grpc_address)
        request = service_pb2.ModelInferRequest(model_name=asked.model)
        for tensor in found:
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            request.raw_input_contents.append(tensor.raw())
        request.outputs.add(name=asked.method)
        try:
            reply = service_pb2_grpc.GRPCInferenceServiceStub(self._channel).ModelInfer(request, timeout=60)
        except grpc.RpcError as error:
            return str(error.details())
        raws = zip(reply.outputs, reply.raw_output_contents, strict=True)
        columns = [by_row(raw_values(output.datatype, raw), output.shape) for output, raw in raws]
        return [[value for part in row for value in part] for row in zip(*columns, strict=True)]

    def close(self) -> None:
        """Close all connections."""
        for _, writer in self._streams:
            writer.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
        if self._channel is not None:
            self._channel.close()
