"""Answers the requests of several channels in turn, in one thread.

A host has a channel for each process that asks it, and so has each of its replicas: a worker that asks too much, stops
in the middle of a frame or does not read its answer delays no other. In each round one request of each channel is
answered; those of one method and layout are answered as one batch where their senders allow it. Answers come in order
on each channel.

A channel belongs to one process of the server and is never used again when that process has ended. Its other end is
then closed, at any point of a frame, and it is dropped.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from serving.domain.errors import ProtocolError
from serving.domain.last_words import note_request
from serving.host.answering import FrameAnswer, answer_alone, answer_together, fail
from serving.host.channels import Channel, LastWords
from serving.host.model import LoadedModel
from serving.rows.batch import Batch
from serving.rows.batch_merging import MAX_MERGED_BYTES, measure_batch
from serving.wire.frames import Frame, FrameKind
from serving.wire.payloads import decode_batch
from serving.wire.stream import FrameReader, FrameWriter


def serve_predictions(
    model: LoadedModel, channels: Sequence[Channel], last_words: LastWords, lifeline: socket.socket | None = None
) -> bool:
    """Answer requests until the lifeline ends, or all channels have ended: then no request can come. Blocks.

    Returns whether the lifeline has ended. `last_words` must be left in the channels that have not ended. Closes the
    channels that have. Raises ProtocolError when a frame comes over the lifeline.
    """
    return _Server(model, channels, last_words, lifeline).serve()


class _Peer:
    """One channel: what has arrived, the frame of the next request, and what has not been sent of the last answer.

    It holds one request and one answer at most: nothing is read while either is there.
    """

    def __init__(self, channel: Channel) -> None:
        channel.socket.setblocking(False)
        self.channel = channel
        self.fd = channel.socket.fileno()
        self.frame: Frame | None = None
        self.writer = FrameWriter(channel.socket)
        self.waits_to_send = False
        self._reader = FrameReader(channel.socket, memoryview(channel.arena))

    def advance(self) -> bool:
        """Send and read what is possible without waiting; False when the other side has ended.

        Raises OSError when it has ended without reading everything, and ProtocolError for what is no frame.
        """
        if self.writer.unsent:
            self.writer.flush()
            if self.writer.unsent:
                return True
            self.frame = self._reader.take()
        if self.frame is not None:
            return True
        try:
            if not self._reader.read():
                return False
        except BlockingIOError:
            return True
        self.frame = self._reader.take()
        return True

    def answer(self, answer: FrameAnswer) -> None:
        """Answer the request, and take the next one if it has arrived; raises what `advance` raises."""
        frame = self.frame
        assert frame is not None
        self.writer.send(answer.kind, frame.request_id, answer.header, answer.buffers)
        self.frame = None if self.writer.unsent else self._reader.take()

    def close(self) -> None:
        """Close the channel."""
        self.frame = None
        del self._reader
        self.channel.close()


class _Request(NamedTuple):
    """A request of one channel; `most_rows` is how many rows it allows together with others."""

    peer: _Peer
    number: int
    most_rows: int
    method: str
    batch: Batch


class _Server:
    """The channels that have not ended, and the rounds in which they are served."""

    def __init__(
        self,
        model: LoadedModel,
        channels: Sequence[Channel],
        last_words: LastWords,
        lifeline: socket.socket | None,
    ) -> None:
        self._model = model
        self._last_words = last_words
        self._lifeline = lifeline
        self._peers = {peer.fd: peer for peer in map(_Peer, channels)}
        self._ready: list[_Peer] = []  # those with a whole request, first those that have waited since the last round
        self._poller = select.poll()
        for fd in self._peers:
            self._poller.register(fd, select.POLLIN)
        if lifeline is not None:
            self._poller.register(lifeline, select.POLLIN)

    def serve(self) -> bool:
        """Serve: see `serve_predictions`."""
        while self._peers:
            for fd, _ in self._poller.poll(0 if self._ready else None):
                peer = self._peers.get(fd)
                if peer is None:
                    self._require_end()
                    return True
                if peer.frame is None:
                    self._advance(peer)
            if self._ready:
                self._answer_round()
        return False

    def _require_end(self) -> None:
        assert self._lifeline is not None
        try:
            raw = self._lifeline.recv(1)
        except OSError:  # the server has ended without reading everything
            return
        if raw:
            raise ProtocolError("a frame came over the lifeline of a serving host")

    def _advance(self, peer: _Peer) -> None:
        try:
            is_there = peer.advance()
        except (OSError, ProtocolError):
            is_there = False
        if is_there:
            self._note_state(peer)
        else:
            self._drop(peer)

    def _note_state(self, peer: _Peer) -> None:
        """Put a channel with a request in its turn, and choose what to wait for: more of it, or room for its answer."""
        if peer.frame is not None:
            self._ready.append(peer)
        if peer.writer.unsent or peer.waits_to_send:
            peer.waits_to_send = bool(peer.writer.unsent)
            self._poller.modify(peer.fd, select.POLLOUT if peer.waits_to_send else select.POLLIN)

    def _drop(self, peer: _Peer) -> None:
        """Forget a channel whose other side has ended, or has sent what is no request."""
        self._poller.unregister(peer.fd)
        del self._peers[peer.fd]
        arena = peer.channel.arena
        self._last_words.memories = tuple(each for each in self._last_words.memories if each is not arena)
        peer.close()

    def _answer_round(self) -> None:
        """Answer one request of each channel that has one."""
        ready, self._ready = self._ready, []
        if len(self._peers) > 1:
            self._copy_unsent()
        requests = [request for request in map(self._decode, ready) if request is not None]
        if len(requests) == 1:
            self._answer_alone(requests[0])
            return
        for together in _group(requests):
            if len(together) == 1 or not self._answer_together(together):
                for request in together:
                    self._answer_alone(request)

    def _copy_unsent(self) -> None:
        """Copy what waits to be sent, because a model may use the same memory for its next answer."""
        for peer in self._peers.values():
            if peer.writer.unsent:
                peer.writer.copy_unsent()

    def _decode(self, peer: _Peer) -> _Request | None:
        """Return the request of a channel; None when it is settled already."""
        frame = peer.frame
        assert frame is not None
        try:
            if frame.kind is not FrameKind.PREDICT:
                raise ProtocolError(f"a serving host does not take {frame.kind.name}")
            return _Request(peer, frame.request_id, frame.most_rows, *decode_batch(frame.header, frame.payload))
        except ProtocolError:
            self._drop(peer)
        except (MemoryError, TypeError) as error:
            self._answer(peer, fail(error))
        return None

    def _answer_alone(self, request: _Request) -> None:
        note_request(request.peer.channel.arena, request.number)
        self._answer(request.peer, answer_alone(self._model, request.method, request.batch))

    def _answer_together(self, requests: list[_Request]) -> bool:
        """Answer several requests as one batch; False when none of them is answered, because that failed."""
        answers = answer_together(self._model, requests[0].method, [request.batch for request in requests])
        if answers is None:
            return False
        for request, answer in zip(requests, answers, strict=True):
            self._answer(request.peer, answer)
        return True

    def _answer(self, peer: _Peer, answer: FrameAnswer) -> None:
        try:
            peer.answer(answer)
        except (OSError, ProtocolError):
            self._drop(peer)
        else:
            self._note_state(peer)


def _group(requests: list[_Request]) -> Iterable[list[_Request]]:
    """Yield requests that are computed together: of one method and layout, and not more rows than each of them allows.

    The first request of a group is the first that is left: no request is put off for others.
    """
    if not any(request.most_rows for request in requests):
        yield from ([request] for request in requests)
        return
    measured = [(request, *measure_batch(request.batch)) for request in requests]
    while measured:
        first, nbytes, layout = measured[0]
        group, left = [first], []
        rows, most_rows = first.batch.rows, first.most_rows
        for each in measured[1:]:
            request = each[0]
            most = min(most_rows, request.most_rows)
            is_alike = request.method == first.method and each[2] == layout
            if is_alike and rows + request.batch.rows <= most and nbytes + each[1] <= MAX_MERGED_BYTES:
                group.append(request)
                rows, nbytes, most_rows = rows + request.batch.rows, nbytes + each[1], most
            else:
                left.append(each)
        yield group
        measured = left
