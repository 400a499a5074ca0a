"""Packets with descriptors that only this process gets."""

from __future__ import annotations

import array
import socket


def receive_packet(sock: socket.socket, most_bytes: int, most_descriptors: int) -> tuple[bytes, list[int], int]:
    """Return a packet, its descriptors and its flags; no byte when the other end is gone. Blocks. Raises OSError.

    No program that is started meanwhile inherits the descriptors. `socket.recv_fds` cannot do that: it ignores the
    flags that it is given. Linux only.
    """
    found = array.array("i")
    data, rights, flags, _ = sock.recvmsg(
        most_bytes, socket.CMSG_LEN(most_descriptors * found.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, content in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return data, list(found), flags
