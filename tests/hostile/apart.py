"""Loading what may do anything: in forked children with a deadline, so that a crash or a loop is an outcome."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """What became of one case: the judge's word, or ``crashed`` or ``hung``, and what was said of it."""

    word: str
    said: str = ""


def judged(
    cases: Sequence[Any], judge: Callable[[Any], tuple[str, str]], *, seconds: int = 30, megabytes: int | None = None
) -> list[Verdict]:
    """Return what `judge` says of each case, asked in a child; one that dies is followed by another.

    A case has `seconds` of wall clock, which is more than a busy machine keeps it waiting, and, where `megabytes` is
    given, that much more memory than this process has.
    """
    verdicts: list[Verdict] = []
    while len(verdicts) < len(cases):
        verdicts += _child(cases[len(verdicts) :], judge, seconds, megabytes)
    return verdicts


def _child(
    cases: Sequence[Any], judge: Callable[[Any], tuple[str, str]], seconds: int, megabytes: int | None
) -> list[Verdict]:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _judge_all(cases, judge, theirs, seconds, megabytes)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        verdicts = [Verdict(*json.loads(line)) for line in pipe.read().splitlines()]
    _, status = os.waitpid(child, 0)
    if len(verdicts) < len(cases):
        cause = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {status >> 8}"
        verdicts.append(Verdict("hung" if cause == "SIGALRM" else "crashed", cause))
    return verdicts


def _judge_all(
    cases: Sequence[Any], judge: Callable[[Any], tuple[str, str]], pipe: int, seconds: int, megabytes: int | None
) -> None:
    with contextlib.suppress(BaseException):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default ends even what never comes back to Python
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)  # a fault's report is not for whoever reads the test's
        os.dup2(silent, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if megabytes is not None:
            now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + (megabytes << 20), -1))
        for case in cases:
            signal.alarm(seconds)
            word, said = judge(case)
            os.write(pipe, json.dumps([word, said]).encode() + b"\n")
    os._exit(0)
