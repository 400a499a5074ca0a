"""The channel between control and a worker, where one of them is gone."""

from __future__ import annotations

import socket
import sys
import threading

import pytest

from serving.wire.worker_channel import ChannelClosed, WorkerChannel
from serving.wire.worker_messages import TYPES, Sync

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")


def test_the_end_is_told_of_a_channel_whose_other_end_was_gone_before_it_started() -> None:
    for _ in range(100):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        ended = threading.Event()
        channel = WorkerChannel(ours, TYPES, lambda _: None, ended.set)
        channel.start()
        assert ended.wait(20)
        assert isinstance(channel.ask(Sync()).exception(20), ChannelClosed)
