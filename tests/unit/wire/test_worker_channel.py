"""The channel between supervisor and worker: what happens at its ends."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
from dataclasses import dataclass

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")

if sys.platform == "linux":
    from serving.wire.worker_channel import ChannelClosed, Received, WorkerChannel


@dataclass(frozen=True)
class Word:
    text: str


def test_an_end_that_is_there_before_the_start_is_told() -> None:
    """A supervisor that dies while its worker starts leaves no worker that nobody knows."""
    for _ in range(50):  # which of the two threads runs first is chance
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        ended = threading.Event()
        channel = WorkerChannel(ours, (Word,), lambda _: None, ended.set)
        channel.start()
        assert ended.wait(10)
        with pytest.raises(ChannelClosed):
            channel.ask(Word("anybody?")).result(10)
        assert ours.fileno() == -1


def test_a_question_that_nobody_answers_any_more_ends() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = WorkerChannel(ours, (Word,), lambda _: None)
    channel.start()
    answer = channel.ask(Word("anybody?"))
    assert theirs.recv(1 << 16)
    theirs.close()
    with pytest.raises(ChannelClosed):
        answer.result(10)


def test_a_question_that_cannot_be_sent_is_forgotten() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = WorkerChannel(ours, (Word,), lambda _: None)
    channel.start()
    with theirs:
        with pytest.raises(OSError, match="Bad file descriptor"):
            channel.ask(Word("with a descriptor that is closed"), [1 << 20])
        assert not channel._questions
        channel.close()


def test_no_program_that_is_started_gets_descriptors_of_a_message() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    received: queue.SimpleQueue[Received] = queue.SimpleQueue()
    channels = [WorkerChannel(ours, (Word,), lambda _: None), WorkerChannel(theirs, (Word,), received.put)]
    for one in channels:
        one.start()
    channels[0].send(Word("here"), [1])
    (descriptor,) = received.get(timeout=10).descriptors
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    channels[0].close()
