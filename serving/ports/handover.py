"""Passes a connection from one process to another: a new one, or one between two requests.

What the client has sent and no process has read is in the kernel's buffer, and goes with the connection. Each worker
has a pair of SOCK_SEQPACKET sockets: one end takes; the other one, which all workers hold, gives. A connection that was
given and not taken belongs to the pair; it is closed only when the last descriptor of the taking end is.
"""

from __future__ import annotations

import array
import fcntl
import functools
import os
import socket
import sys
import termios
from typing import NamedTuple

_IS_NEW, _HAS_ANSWERED = b"\0", b"\1"
_DESCRIPTOR_BYTES = array.array("i").itemsize


class ConnectionDropped(OSError):
    """The kernel has closed a connection that was given, because this process had no descriptor left for it."""


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Return a taking and a giving end. They do not block, and are closed on exec."""
    taking, giving = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in (taking, giving):
        one.setblocking(False)
    return taking, giving


class Passed(NamedTuple):
    """A connection that was given. `has_answered`: a request on it has been answered, so it may be idle for long."""

    connection: socket.socket
    has_answered: bool


def give(giving: socket.socket, descriptor: int, *, has_answered: bool = False) -> bool:
    """Pass a connection; False if that is not possible now. The caller's descriptor stays open. Never blocks."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (descriptor,)))
    try:
        giving.sendmsg((_HAS_ANSWERED if has_answered else _IS_NEW,), (rights,), socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def take(taking: socket.socket) -> Passed | None:
    """Return the next connection that was given, None if there is none. Never blocks.

    Raises ConnectionDropped if the process has as many descriptors as it may have: the connection is lost.
    """
    try:  # not socket.recv_fds: it ignores its flags
        message, rights, _, _ = taking.recvmsg(
            len(_IS_NEW), socket.CMSG_LEN(_DESCRIPTOR_BYTES), socket.MSG_CMSG_CLOEXEC
        )
    except (BlockingIOError, InterruptedError):
        return None
    if not rights:
        if not message:
            return None  # the supervisor and all workers have ended
        raise ConnectionDropped("a connection was closed: this process had no descriptor left for it")
    connection = socket.socket(fileno=int.from_bytes(rights[0][2], sys.byteorder))
    connection.setblocking(False)
    return Passed(connection, message == _HAS_ANSWERED)


def has_free_descriptor() -> bool:
    """Whether this process may have one more descriptor. To be asked before `take`: what waits is not lost then."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def count_waiting(giving: socket.socket) -> int:
    """Return how many connections were given and not taken yet, by whatever process. Never blocks.

    The kernel says how much memory they take in its queue, and all messages take the same.
    """
    return _read_queue(giving) // _message_bytes()


@functools.cache
def _message_bytes() -> int:
    taking, giving = make_pair()
    with taking, giving:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            give(giving, descriptor)
        finally:
            os.close(descriptor)
        return _read_queue(giving) or 1


def _read_queue(giving: socket.socket) -> int:
    found = bytearray(_DESCRIPTOR_BYTES)
    fcntl.ioctl(giving, termios.TIOCOUTQ, found)
    return int.from_bytes(found, sys.byteorder)
