"""Where control of several processes is found, and what both sides say first."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from serving.wire.control_socket import (
    SOCKET_NAME,
    Admission,
    Hello,
    Peer,
    connect_to_control,
    listen_for_processes,
    read_peer,
    receive_admission,
    receive_hello,
    send_greeting,
    take_lock,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several processes need Linux")


def test_the_socket_is_found_however_long_its_path_is_and_only_its_user_may_use_it(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 200)
    directory.mkdir()
    assert connect_to_control(directory) is None
    with listen_for_processes(directory) as listener:
        assert stat.S_IMODE((directory / SOCKET_NAME).stat().st_mode) == 0o600
        sock = connect_to_control(directory)
        assert sock is not None
        with sock, listener.accept()[0] as accepted:
            assert read_peer(sock) == read_peer(accepted) == Peer(os.getpid(), os.geteuid())
    assert connect_to_control(directory) is None, "nobody listens there any more"
    with listen_for_processes(directory):  # the next one takes the place of the socket that was left
        again = connect_to_control(directory)
        assert again is not None
        again.close()


def test_one_process_has_the_lock_until_the_last_copy_of_its_descriptor_is_closed(tmp_path: Path) -> None:
    lock = take_lock(tmp_path)
    assert lock is not None
    copy = os.dup(lock)
    os.close(lock)
    assert take_lock(tmp_path) is None
    os.close(copy)
    free = take_lock(tmp_path)
    assert free is not None
    os.close(free)


def test_processes_of_other_users_are_not_trusted() -> None:
    assert Peer(1, os.geteuid()).is_trusted
    assert Peer(1, 0).is_trusted
    assert not Peer(1, os.geteuid() + 1).is_trusted


def test_both_sides_say_what_they_are_with_descriptors() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send_greeting(ours, Hello("1", {"a": "b"}), [ours.fileno()])
        received = receive_hello(theirs)
        assert received is not None
        assert received[0] == Hello("1", {"a": "b"})
        os.close(received[1][0])
        send_greeting(theirs, Admission(3))
        assert receive_admission(ours) == (Admission(3), [])


def test_what_another_release_says_is_understood_as_far_as_it_goes() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(json.dumps({"release": "9", "settings": {}, "wire": 5, "shape": "new"}).encode())
        assert receive_hello(theirs) == (Hello("9", {}, 5), [])
        for nonsense in (b"{", b"[]", b"3", b'{"release": "9"}', b"\xff"):
            ours.send(nonsense)
            assert receive_hello(theirs) is None
        ours.close()
        assert receive_hello(theirs) is None
