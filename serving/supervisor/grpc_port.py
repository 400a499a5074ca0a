"""The port for gRPC, kept for several workers: each listens on it by itself, as gRPC takes no socket from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from serving.ports.listening import Sockets, close_all, port_of, reserve_port
from serving.server import grpc_port_taken, load_grpc
from serving.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class GrpcPort:
    """What the supervisor keeps, so that nothing else listens there while a worker is replaced. Main thread only."""

    host: str
    reserved: Sockets

    @classmethod
    def keep(cls, server: ServerSettings) -> GrpcPort | None:
        """Reserve the port, None if there is none for gRPC. Raises CannotListen.

        gRPC is imported here, so that workers share the memory of its libraries. Nothing of it is started: its threads
        would not be there in a fork. Blocks while a name is looked up.
        """
        if server.grpc_port is None:
            return None
        load_grpc()
        try:
            return cls(server.host, reserve_port(server.host, server.grpc_port))
        except OSError:
            raise grpc_port_taken(server, server.grpc_port) from None

    @property
    def number(self) -> int:
        """The port's number, also if 0 was asked for."""
        return port_of(self.reserved)

    @property
    def address(self) -> str:
        """Where workers listen."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.number}"

    def close(self) -> None:
        """Give the port back, when all workers have ended."""
        close_all(self.reserved)
