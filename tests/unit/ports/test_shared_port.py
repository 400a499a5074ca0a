"""What a worker gets of a port, and what the supervisor keeps."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from serving.ports.listening import close_all
from serving.ports.shared_port import PortShare, SharedPort


def test_a_share_arrives_complete_and_closed_on_exec() -> None:
    with closing(SharedPort.open("127.0.0.1", 0, 3)) as port:
        copies = [os.dup(one) for one in port.shares[1].descriptors()]
        for one in copies:
            os.set_inheritable(one, True)
        share = PortShare.receive(1, 3, copies)
        assert (share.worker, len(share.giving), len(share.listeners)) == (1, 3, 1)
        assert share.listeners[0].getsockname()[1] == port.port
        assert not any(os.get_inheritable(one) for one in share.descriptors())
        for ours, theirs in zip(port.shares[1].descriptors(), share.descriptors(), strict=True):
            assert os.path.sameopenfile(ours, theirs)
        share.close_handover()
        close_all(share.listeners)
        for one in copies:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(one)


def test_clients_cannot_connect_when_nobody_listens_any_more() -> None:
    with closing(SharedPort.open("127.0.0.1", 0, 2)) as port, closing(socket.socket()) as holder:
        number = port.port
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", number))  # without listening: so no other program gets the port
        socket.create_connection(("127.0.0.1", number)).close()
        port.stop_listening()
        port.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", number))


def test_a_worker_is_left_out_until_it_is_readmitted_or_its_successor_accepts() -> None:
    with closing(SharedPort.open("127.0.0.1", 0, 2)) as port:
        port.counts.publish(0, 3)
        port.leave_out(0)
        assert port.counts.read() == [None, None]
        port.readmit(0)
        assert port.counts.read() == [3, None]
        port.leave_out(0)
        port.expect_successor(0)
        assert port.counts.read() == [None, None]
        port.counts.publish(0, 0)
        assert port.counts.read() == [0, None]
