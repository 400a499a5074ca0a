"""The engine of a hosted servable: its model lives in a host process and in the replicas of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import Callable, Iterable

from serving.domain.errors import HostLost, InvalidInput, Overloaded, ProtocolError, ServingError
from serving.domain.signature import Method
from serving.domain.text import one_line
from serving.plane.batching import Queue, Request, decode, split
from serving.plane.host_group import HostGroup, Process, Replica
from serving.rows.batch import Batch, Prediction
from serving.telemetry.request_trace import REQUEST_TRACE
from serving.wire.frames import MOST_MERGED_ROWS, Frame

MAX_UNSENT_BYTES = 256 << 20
MAX_DEATHS = 2
CLOSE_SECONDS = 5.0


class HostedEngine:
    """Sends batches to a host and survives its death. Event loop thread only, except where said.

    Each process that answers has one frame under way. An idle process gets a request at once. While all are busy,
    requests wait, and go together with others like them when a process is free. When requests that went together are
    refused, fail or kill a process, they are sent again one by one, so that only the request at fault gets the error.

    When a process is gone or stuck, `on_lost` is called and the others go on; when none is left, requests wait until
    `attach` brings another host. A process that breaks the protocol counts as dead, and ends the whole host:
    `violation` says how the last one broke it, None when it ended otherwise. `host` is the number of the host that was
    attached last, `has_answered` says whether it has answered a request yet.
    """

    is_immediate = False

    def __init__(self, name: str, on_lost: Callable[[HostedEngine], None], *, max_batch_rows: int = 1024) -> None:
        self.name = name
        self._on_lost = on_lost
        self._max_batch_rows = max_batch_rows
        self._most_merged_rows = min(max_batch_rows, MOST_MERGED_ROWS) if max_batch_rows > 1 else 0
        self._numbers = itertools.count(1)
        self._queue = Queue()
        self._group: HostGroup | None = None
        self._leaving: list[HostGroup] = []
        self._watch: asyncio.TimerHandle | None = None
        self._watch_at = math.inf
        self._outage: ServingError | None = None
        self._last_word: ServingError | None = None
        self._is_closed = False
        self.violation: str | None = None
        self.host = 0
        self.has_answered = False

    @property
    def is_connected(self) -> bool:
        """True while a process is there to answer."""
        return self._group is not None

    @property
    def is_whole(self) -> bool:
        """True while every process is there and none is stuck: otherwise the host should be replaced."""
        return self._group is not None and self._group.is_whole

    async def attach(self, process: Process, host: int = 0) -> None:
        """Answer through `process`, which has a warm model and waits for requests. Waiting requests are sent now.

        `host` is the number that its end is reported with. The process replaces the present host, which ends when it
        has answered the requests under way.
        """
        group = HostGroup(process, self._take, self._take_loss)
        await group.connect()
        if self._is_closed:
            group.end()
            return
        if self._group is not None:
            self._leaving.append(self._group)
        self._group, self.host, self._outage, self.has_answered = group, host, None, False
        self._end_leaving()
        if group.is_whole:
            self._dispatch_requests()
        else:
            self._replace_if_lost(group)

    def answer_now(self, method: Method, batch: Batch) -> Prediction | None:  # noqa: ARG002  (Engine's signature)
        """Return None: the answer always comes from another process."""
        return None

    async def predict(self, method: Method, batch: Batch, deadline_seconds: float) -> Prediction:
        """Answer one batch; see :class:`serving.plane.servable.Engine`."""
        if self._outage is not None:
            raise self._outage
        if self._queue.nbytes > MAX_UNSENT_BYTES:
            raise Overloaded("the model is still busy with earlier, larger requests; try again shortly")
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + deadline_seconds
        request = Request(next(self._numbers), method, batch, ends_at, deadline_seconds, loop.create_future())
        request.trace = REQUEST_TRACE.get()
        replica = None if self._group is None or self._queue else self._group.find_idle()
        if replica is None:
            self._queue.add(request)
        else:
            self._send(replica, [request])
        if ends_at < self._watch_at:
            self._arm_timer(ends_at)
        try:
            return await request.answer
        except asyncio.CancelledError:
            self._queue.discard(request)
            raise

    def report_outage(self, error: ServingError) -> None:
        """Note that no host could be started: answer every request with `error` at once until one is attached."""
        if self._group is None:
            self._outage = error
            for request in self._queue.clear():
                request.settle(error)

    def expect_no_host(self, error: ServingError) -> None:
        """Note that no other host comes: without one, every request is answered with `error` at once."""
        self._last_word = error
        self.report_outage(error)

    async def close(self) -> None:
        """End the host and wait until its process is gone. Called once, when no lease is left."""
        self._is_closed = True
        if self._watch is not None:
            self._watch.cancel()
        for left in self._leaving:
            left.end()
        group, self._group, self._leaving = self._group, None, []
        if group is None:
            return
        for replica in group.replicas:
            replica.link.close()
        exited = asyncio.wrap_future(group.process.exited)
        try:
            await asyncio.wait_for(asyncio.shield(exited), CLOSE_SECONDS)
        except TimeoutError:
            group.process.kill()
            await exited
        finally:
            with contextlib.suppress(OSError):
                group.end()

    # --- out ---------------------------------------------------------------------------------------------------------

    def _dispatch_requests(self) -> None:
        """Send every idle process the oldest request, together with the requests that can go with it."""
        group = self._group
        if group is None or not self._queue:
            return
        self._queue.expire(asyncio.get_running_loop().time())
        while self._queue and (replica := group.find_idle()) is not None:
            self._send(replica, self._queue.take(self._max_batch_rows))

    def _send(self, replica: Replica, members: list[Request]) -> None:
        try:
            replica.send(members, 0 if members[0].is_alone else self._most_merged_rows)
        except (ProtocolError, TypeError, ValueError, MemoryError) as error:  # values that have no form on the wire
            self._tell_one_by_one(members, InvalidInput(f"these rows cannot be given to a model: {error}"))

    def _tell_one_by_one(self, members: list[Request], outcome: ServingError) -> None:
        """Give one member the outcome. If there are several, the fault may be in any of them: send each by itself."""
        if len(members) == 1:
            members[0].settle(outcome)
        else:
            self._put_back(members)

    def _put_back(self, members: Iterable[Request]) -> None:
        waiting = [member for member in members if not member.answer.done()]
        for member in waiting:
            member.is_alone = True
        self._queue.put_back(waiting)

    # --- in ----------------------------------------------------------------------------------------------------------

    def _take(self, replica: Replica, frame: Frame) -> None:
        try:
            outcome = decode(frame, replica.rows)
        except (ProtocolError, TypeError, ValueError) as error:
            replica.link.break_off(one_line(str(error)))  # its members are asked again, as after any death
            return
        members, self.has_answered = replica.take(), True
        answers = split(outcome, members) if isinstance(outcome, Prediction) else []
        if isinstance(outcome, ServingError):
            self._tell_one_by_one(members, outcome)
        self._dispatch_requests()
        for member, answer in zip(members, answers, strict=False):
            member.settle(answer)
        self._end_leaving()

    def _take_loss(self, replica: Replica) -> None:
        group = replica.group
        if group is not self._group and group not in self._leaving:
            return  # this side has ended it
        members = replica.take()
        if len(members) == 1 and replica.link.was_computing:  # else it only waited, or went with others
            members[0].deaths += 1
            if members[0].deaths >= MAX_DEATHS:
                reason = "the process that holds the model died twice while it answered; try again shortly"
                members[0].settle(HostLost(reason))
        self._put_back(members)
        self._replace_if_lost(group)

    def _replace_if_lost(self, group: HostGroup) -> None:
        """Go on without a process that is gone or stuck, and report it.

        The group is ended when it cannot answer any more, or when one of its processes broke the protocol: all of them
        have run the same code.
        """
        is_current = group is self._group
        if is_current:
            self.violation = group.violation
        if not group.can_answer or group.violation is not None:
            self._drop(group)
        if is_current and not self._is_closed:
            self._on_lost(self)
        if self._last_word is not None:
            self.report_outage(self._last_word)
        self._dispatch_requests()
        self._end_leaving()

    def _drop(self, group: HostGroup) -> None:
        """End a group. Its replicas end with their host but did not cause its death: their members are not blamed."""
        for replica in group.replicas:
            self._put_back(replica.take())
        if group is self._group:
            self._group = None
        elif group in self._leaving:
            self._leaving.remove(group)
        group.end()

    def _end_leaving(self) -> None:
        """End the groups that were replaced and have answered their last requests."""
        for group in [group for group in self._leaving if not group.is_answering]:
            self._drop(group)

    # --- deadlines ---------------------------------------------------------------------------------------------------

    def _arm_timer(self, ends_at: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch_at = ends_at
        self._watch = asyncio.get_running_loop().call_at(ends_at, self._expire_requests)

    def _expire_requests(self) -> None:
        """Give up requests past their deadline; end a host that is stuck on requests that were all given up."""
        self._watch, self._watch_at = None, math.inf
        now = asyncio.get_running_loop().time()
        self._queue.expire(now)
        groups = [*self._leaving] if self._group is None else [*self._leaving, self._group]
        for group in groups:
            stuck = [replica for replica in group.replicas if replica.expire(now)]
            if stuck:
                self._replace_if_lost(group)
        under_way = [member.ends_at for group in groups for replica in group.replicas for member in replica.members]
        ends_at = min((each for each in [*under_way, self._queue.first_deadline] if each > now), default=math.inf)
        if ends_at < math.inf:
            self._arm_timer(ends_at)
