"""Something that dies where a hostile file gets anything done: files, a listening socket, a child of this process."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile.opcodes import call, named, whole

# not the address of every other test: one may call a port that its own server has left, and that is free again
ADDRESS = "127.0.0.2"


@dataclass
class Canary:
    """A directory with a file nobody may touch, a name nobody may make, and a port nobody may call."""

    root: Path
    _listener: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        Path(self.directory).mkdir(parents=True)
        Path(self.victim).write_bytes(b"alive")
        Path(self.script).write_text(self.code, encoding="utf-8")
        Path(self.second_path).write_bytes(self.second)
        self._listener = socket.create_server((ADDRESS, 0))
        self._listener.setblocking(False)

    @property
    def directory(self) -> str:
        """A folder that must stay."""
        return str(self.root / "cage")

    @property
    def victim(self) -> str:
        """A file that must stay as it is."""
        return str(self.root / "cage" / "victim")

    @property
    def touched(self) -> str:
        """A file that must not come to be."""
        return str(self.root / "touched")

    @property
    def script(self) -> str:
        """Python that would be run."""
        return str(self.root / "script.py")

    @property
    def library(self) -> str:
        """A library that is not there, and whose place would be looked at."""
        return "libcanary"

    @property
    def second_path(self) -> str:
        """A pickle that another one would load without any rules."""
        return str(self.root / "second.pkl")

    @property
    def second(self) -> bytes:
        """What is in it."""
        return whole(call(named("os:system"), self.command))

    @property
    def command(self) -> str:
        """A line of shell that kills the canary."""
        return f"touch '{self.touched}'"

    @property
    def code(self) -> str:
        """An expression of Python that does."""
        return f"open({self.touched!r}, 'w').close()"

    @property
    def port(self) -> int:
        """Where nobody may call."""
        port: int = self._listener.getsockname()[1]
        return port

    def harm(self) -> str | None:
        """Say what was done to it since it was made, or since the last time it was asked and revived."""
        found = None
        if Path(self.touched).exists():
            found = "a file was made"
            Path(self.touched).unlink()
        if not Path(self.victim).exists() or Path(self.victim).read_bytes() != b"alive":
            found = "a file was deleted or changed"
            Path(self.directory).mkdir(exist_ok=True)
            Path(self.victim).write_bytes(b"alive")
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return found
        return "a connection was made"

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
