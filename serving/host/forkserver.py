"""The zygote process: imports everything a model may need once, then forks a host for each candidate.

Run as ``python -m serving.host.forkserver FD PID`` where FD is one end of a Unix stream socket, and PID the server's
process; in another environment than the server's, `enter` runs it. It stays single-threaded and never computes
anything, because a process that has used OpenMP must not be forked. Messages are those of
`serving.wire.zygote_messages`.

When the control socket ends, the server is gone: the zygote kills every host and exits. Hosts also die with the zygote,
and the zygote with the server (PR_SET_PDEATHSIG). So no process is left over, whichever of them is killed first, and
even when the zygote is stopped.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable

from serving.sandbox.process import die_with_parent
from serving.wire.wire_version import WIRE_VERSION
from serving.wire.zygote_messages import COMMAND, EVENT, MOST_DESCRIPTORS, Op, count_descriptors


def main() -> None:
    """Preload, send READY, then fork on demand until the control socket ends."""
    control = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    gc.disable()  # imports leave almost no garbage, and to look for it takes a fifth of the start
    from serving.host import preload, replicas  # noqa: F401, PLC0415  (the first import is the work)

    replicas.adopt_orphans()
    gc.freeze()  # imported objects are never collected, so hosts share their pages and do not copy them
    gc.enable()
    hosts: dict[int, int] = {}
    try:
        for thread in _list_other_threads():
            control.sendall(EVENT.pack(Op.THREAD, 0, thread))
        control.sendall(EVENT.pack(Op.READY, WIRE_VERSION, os.getpid()))
        _serve_commands(control, wake_read, wake_write, hosts)
    except OSError:
        pass  # the server is gone
    finally:
        for pid in hosts.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _list_other_threads() -> list[int]:
    """Return the ids of all threads but the main one, those of libraries included; empty on systems without /proc."""
    try:
        return sorted(int(thread) for thread in os.listdir("/proc/self/task") if int(thread) != os.getpid())
    except FileNotFoundError:
        return []


def _serve_commands(control: socket.socket, wake_read: int, wake_write: int, hosts: dict[int, int]) -> None:
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    received: dict[int, list[int]] = {}
    while True:
        ready = dict(poller.poll())
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap_hosts(control, hosts)
        if control.fileno() not in ready:
            continue
        raw, fds, _, _ = socket.recv_fds(control, COMMAND.size, MOST_DESCRIPTORS)
        if len(raw) < COMMAND.size:
            return
        op, host_id, replicas, slots = COMMAND.unpack(raw)
        if op == Op.DESCRIPTORS:
            received.setdefault(host_id, []).extend(fds)
        elif op == Op.SPAWN:
            fds = received.pop(host_id, []) + fds
            _close_all(fd for left in received.values() for fd in left)  # of hosts that were given up
            received.clear()
            private = [control.fileno(), wake_read, wake_write]
            _spawn_host(control, host_id, fds, (replicas, slots), private, hosts)
        elif host_id in hosts:
            os.kill(hosts[host_id], signal.SIGKILL)


def _spawn_host(
    control: socket.socket,
    host_id: int,
    fds: list[int],
    shape: tuple[int, int],
    private: list[int],
    hosts: dict[int, int],
) -> None:
    """Fork a host and report it; if the system cannot fork now, the other hosts go on. `shape`: replicas, slots."""
    try:
        if len(fds) != count_descriptors(*shape):  # this process may open no more, so the kernel closed some
            _close_all(fds)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        pid = _fork_host(fds, shape[1], private)
    except OSError as error:
        control.sendall(EVENT.pack(Op.NOT_STARTED, host_id, error.errno or 0))
        return
    hosts[host_id] = pid
    try:
        pidfd = os.pidfd_open(pid)  # before it can be reaped, so the id belongs to this process and no other
    except (AttributeError, OSError):
        control.sendall(EVENT.pack(Op.STARTED_UNSEEN, host_id, pid))
        return
    try:
        socket.send_fds(control, [EVENT.pack(Op.STARTED, host_id, pid)], [pidfd])
    finally:
        os.close(pidfd)


def _reap_hosts(control: socket.socket, hosts: dict[int, int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        host_id = next((key for key, value in hosts.items() if value == pid), None)
        if host_id is not None:
            del hosts[host_id]
            control.sendall(EVENT.pack(Op.EXITED, host_id, os.waitstatus_to_exitcode(status)))


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _fork_host(fds: list[int], slots: int, private: list[int]) -> int:
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        pid = -1
        raise
    finally:
        if pid:
            _close_all(fds)
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        _close_all(private)
        from serving import sandbox  # noqa: PLC0415  (preloaded)
        from serving.host import child  # noqa: PLC0415  (preloaded)

        sandbox.die_with_parent(parent)
        status = child.main(fds, slots)
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
