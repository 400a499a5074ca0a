"""Requests of odd parts, from seeds: wherever their bytes are cut they are read alike, and nothing raises.

The parts are those in which two servers in a row may differ: lengths, codings, chunks, ends of lines, pipelining.
"""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import pytest

from tests.fakes import run
from tests.unit.http1.test_connection import state_with_date
from tests.unit.http1.wire import Wire, turn

LINES = [b"POST /predict HTTP/1.1"] * 4 + [b"POST /other HTTP/1.1"] * 2
LINES += [b"POST http://localhost/predict HTTP/1.1", b"GET /other HTTP/1.1", b"PUT /predict?x=1 HTTP/1.1"]
LINES += [b"POST /predict HTTP/1.0", b"POST /other HTTP/1.2", b"PRI * HTTP/2.0", b"post /other HTTP/1.1"]
LENGTHS = [b"Content-Length: %d"] * 6 + [b"Content-Length:\t%d", b"CONTENT-LENGTH: 0%d", b"Content-Length : %d"]
LENGTHS += [b"Content-Length: +%d", b"Content-Length: 0x%x", b"Content-Length: %d\r\nContent-Length: 3"]
CODINGS = [b"Transfer-Encoding: chunked"] * 6 + [b"transfer-encoding:Chunked", b"Transfer-Encoding: gzip, chunked"]
CODINGS += [b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: chunked\r\nContent-Length: 3"]
OTHERS = [b"Connection: close", b"Connection: keep-alive", b"Connection: upgrade\r\nUpgrade: h2c", b"X: a\r\n b", b"X:"]
OTHERS += [b"Expect: 100-continue"] * 2 + [b"Host: b", b"X: y\nZ: 1", b"X: y\r", b": x", b"Connection: Content-Length"]
BODIES = [b"now", b"now", b"later", b"", b"x" * 30, b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"]
SIZES = [b"%x"] * 12 + [b"0%x", b"%x;a=b", b'%x;a="x\r\n"', b" %x", b"%x ", b"+%x", b"0x%x"]
LASTS = [b"0\r\n\r\n"] * 8 + [b"0\r\nContent-Length: 5\r\n\r\n", b"0\n\n", b"0;x\r\n\r\n", b"-0\r\n\r\n", b"00\r\n\r\n"]
ENDS = [b"\r\n"] * 30 + [b"\n", b""]
ANSWER = re.compile(rb"HTTP/1\.1 (\d+) [^\r]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
CONTINUE = 100
LISTS = 60  # of requests, for each seed


class Outcome(NamedTuple):
    """What a client sees: the status and the body of each answer, and whether the connection is at its end."""

    answers: list[tuple[int, bytes]]
    has_ended: bool


def make_request(random: Random) -> bytes:
    """Return a request, which need not be one."""
    body = random.choice(BODIES)
    if random.random() < 0.6:
        form = random.choice(LENGTHS)
        lines = [form % len(body)]
    else:
        lines = [random.choice(CODINGS)]
        body = make_chunks(random, body)
    lines += [b"Host: localhost", *random.sample(OTHERS, random.choice((0, 0, 0, 1, 2)))]
    random.shuffle(lines)
    end = b"\r\n" if random.random() < 0.97 else b"\n"
    before = random.choice((b"", b"", b"", b"\r\n"))
    return before + end.join([random.choice(LINES), *lines, b"", b""]) + body


def make_chunks(random: Random, body: bytes) -> bytes:
    """Return a body in chunks, which need not be any."""
    parts = []
    while body:
        size = random.randint(1, len(body))
        parts += [random.choice(SIZES) % size, random.choice(ENDS), body[:size], random.choice(ENDS)]
        body = body[size:]
    return b"".join([*parts, random.choice(LASTS)])


async def send(pieces: list[bytes]) -> Outcome:
    """Send pieces over a connection of its own, and wait for everything that follows from them."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    wire = Wire(state=state_with_date())
    for piece in pieces:
        if not wire.transport.is_closing():
            await wire.play(piece)
    for _ in range(8):
        await turn()
    found = Outcome(read_answers(wire.transport.written), wire.transport.ends != [])
    wire.lose()
    await turn()
    assert failures == []
    assert wire.limits.ahead_bytes == 0
    return found


def read_answers(sent: bytes) -> list[tuple[int, bytes]]:
    """Read what was sent as answers, and nothing else; without those that say to go on."""
    answers, at = [], 0
    while at < len(sent):
        match = ANSWER.match(sent, at)
        assert match is not None, sent[at:]
        status, length = int(match[1]), re.search(rb"(?i)content-length: (\d+)", match[2])
        end = match.end() + (int(length[1]) if length else 0)
        if status != CONTINUE:
            answers.append((status, sent[match.end() : end]))
        at = end
    return answers


def are_alike(one: Outcome, other: Outcome) -> bool:
    """Say whether two clients saw the same. What cannot be read is not refused while an earlier answer is under way."""
    short, long = sorted((one.answers, other.answers), key=len)
    is_less_refused = 0 < len(short) == len(long) - 1 and long[-1][0] >= 400
    return one.has_ended == other.has_ended and long[: len(short)] == short and (short == long or is_less_refused)


@pytest.mark.parametrize("seed", range(4))
def test_requests_of_odd_parts_are_read_alike_wherever_they_are_cut(seed: int) -> None:
    random = Random(seed)

    async def scenario() -> None:
        statuses = set()
        for _ in range(LISTS):
            raw = b"".join(make_request(random) for _ in range(random.choice((1, 1, 2, 3))))
            whole = await send([raw])
            some = sorted(random.sample(range(1, len(raw)), 4))
            for cuts in ([*range(1, len(raw))], some):
                cut = await send([raw[start:end] for start, end in pairwise([0, *cuts, len(raw)])])
                assert are_alike(whole, cut), (raw, whole, cut)
            statuses |= {status for status, _ in whole.answers}
        assert statuses == {200, 400}

    run(scenario())
