"""What clients were answered, and the one checker of what must hold over all of it.

Replies are judged when they come in, so that hours of them need no memory: everything is counted, what is wrong is kept
up to a bound. A fault that makes something unavoidable says so, before it strikes, with `Record.excuse`.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from serving.domain.version import order_key

if TYPE_CHECKING:
    from tests.e2e.harness import Server

MAX_PROBLEMS = 50
BUCKETS_PER_DECADE = 40  # of the histogram of latencies: 6% wide
FORGOTTEN_SECONDS = 300.0  # longer than any request, and than any connection is silent
VALUE_TOLERANCE = 1e-6  # versions are whole numbers, graphs may differ in the last bits
MORE_MEGABYTES, MORE_THREADS, MORE_DESCRIPTORS = 25, 2, 2


@dataclass(frozen=True)
class Reply:
    """One answer, or what went wrong instead: status 0 says that the connection failed. Times are of perf_counter."""

    connection: int
    sent_at: float
    seconds: float
    status: int
    version: str = ""
    value: float | None = None
    error: str = ""
    client: str = ""
    model: str = ""

    @property
    def ended_at(self) -> float:
        """When the answer was complete."""
        return self.sent_at + self.seconds


@dataclass
class Excuse:
    """What a fault makes unavoidable for requests that were under way between its beginning and its end."""

    statuses: frozenset[int]
    may_go_back: bool
    began_at: float
    ended_at: float = math.inf

    def covers(self, began_at: float, ended_at: float) -> bool:
        """Whether any of this time is within the fault."""
        return began_at <= self.ended_at and ended_at >= self.began_at


@dataclass
class Record:
    """Takes replies from any thread and judges them. `keep` bounds how many are kept, not how many are judged."""

    keep: int | None = None
    replies: deque[Reply] = field(init=False)
    counts: Counter[int] = field(default_factory=Counter)
    excuses: list[Excuse] = field(default_factory=list)
    excused: int = 0
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0

    def __post_init__(self) -> None:
        self.replies = deque(maxlen=self.keep)
        self._lock = threading.Lock()
        self._last: dict[tuple[str, str, int], Reply] = {}
        self._seconds: Counter[int] = Counter()

    def add(self, reply: Reply) -> None:
        """Take in and judge one reply."""
        with self._lock:
            self.replies.append(reply)
            self.counts[reply.status] += 1
            if reply.status == 200 and not any(self._covering(reply.sent_at, reply.ended_at)):
                self._seconds[math.ceil(BUCKETS_PER_DECADE * math.log10(max(reply.seconds, 1e-6)))] += 1
            problem = self._problem(reply)
            if problem is not None:
                self.problem_count += 1
                if len(self.problems) < MAX_PROBLEMS:
                    self.problems.append(f"{problem}: {reply}")

    @contextlib.contextmanager
    def excuse(self, *statuses: int, may_go_back: bool = False) -> Iterator[None]:
        """While the block lasts, these statuses (0: connections that fail) and older versions are unavoidable."""
        excuse = Excuse(frozenset(statuses), may_go_back, time.perf_counter())
        with self._lock:
            self.excuses = [one for one in self.excuses if one.ended_at > excuse.began_at - FORGOTTEN_SECONDS]
            self.excuses.append(excuse)
        try:
            yield
        finally:
            excuse.ended_at = time.perf_counter()

    def last_versions(self) -> set[str]:
        """Return the versions that gave the last answers, one for each connection that was ever answered."""
        with self._lock:
            return {reply.version for reply in self._last.values()}

    def verify(self) -> None:
        """Fail when there was no traffic, or anything about it was wrong."""
        assert self.counts, "no traffic at all"
        assert not self.problem_count, (
            f"{self.problem_count} of {sum(self.counts.values())} replies are wrong, the first: {self.problems[:3]}"
        )

    def quantile(self, share: float) -> float:
        """Return the latency in seconds that this share of the answers outside of excused times did not exceed."""
        rest = share * sum(self._seconds.values())
        for bucket in sorted(self._seconds):
            rest -= self._seconds[bucket]
            if rest <= 0:
                return float(10.0 ** (bucket / BUCKETS_PER_DECADE))
        return math.nan

    def _problem(self, reply: Reply) -> str | None:
        if reply.status != 200:
            if any(reply.status in one.statuses for one in self._covering(reply.sent_at, reply.ended_at)):
                self.excused += 1
                return None
            return "a request failed"
        if reply.error or reply.value is None or abs(reply.value - float(reply.version)) > VALUE_TOLERANCE:
            return "its version would not give this answer"
        key = (reply.client, reply.model, reply.connection)
        before = self._last.get(key)
        self._last[key] = reply
        if before is None or order_key(reply.version) >= order_key(before.version):
            return None
        if any(one.may_go_back for one in self._covering(before.sent_at, reply.ended_at)):
            return None
        return f"went back from {before.version}"

    def _covering(self, began_at: float, ended_at: float) -> Iterable[Excuse]:
        return (one for one in self.excuses if one.covers(began_at, ended_at))


def check(replies: Iterable[Reply], *, may_go_back: bool = False) -> None:
    """Every request was answered with 200, by the version it names, and no connection saw time run backwards."""
    record = Record()
    if may_go_back:
        record.excuses.append(Excuse(frozenset(), may_go_back=True, began_at=0.0))
    for reply in replies:
        record.add(reply)
    record.verify()


@dataclass(frozen=True)
class Usage:
    """What a server holds of the machine."""

    processes: int
    threads: int
    descriptors: int
    megabytes: float

    @classmethod
    def of(cls, server: Server) -> Usage:
        """Measure a running server."""
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        rss = process.memory_info().rss / (1 << 20)
        return cls(len(server.processes()), process.num_threads(), process.num_fds(), round(rss, 1))

    def is_back_at(self, baseline: Usage, more_megabytes: float = MORE_MEGABYTES) -> bool:
        """Whether nothing is left over but what an allocator and a connection or two may keep."""
        return (
            self.processes <= baseline.processes
            and self.threads <= baseline.threads + MORE_THREADS
            and self.descriptors <= baseline.descriptors + MORE_DESCRIPTORS
            and self.megabytes <= baseline.megabytes + more_megabytes
        )
