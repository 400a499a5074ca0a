"""Waiting for what workers answer."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import Any

from serving.supervisor.worker_link import WorkerLink
from serving.wire.worker_channel import ChannelClosed


class NoAnswer(Exception):
    """A worker did not do what it was asked; the message says why. `has_ended`: because it is gone."""

    def __init__(self, reason: str, *, has_ended: bool = False) -> None:
        super().__init__(reason)
        self.has_ended = has_ended


def require_answer(answer: Future[Any], wanted: type | tuple[type, ...], seconds: float) -> None:
    """Wait for an answer of a wanted type; raises NoAnswer for any other one, and when none comes in time. Blocks."""
    wait([answer], seconds)
    if not answer.done():
        raise NoAnswer(f"it has not answered for {seconds:.3g} s")
    if isinstance(answer.exception(), ChannelClosed):
        raise NoAnswer("it has ended", has_ended=True)
    found = answer.result()
    if not isinstance(found, wanted):
        raise NoAnswer(str(getattr(found, "reason", found)))


def find_failures(
    answers: Mapping[WorkerLink, Future[Any]], wanted: type, seconds: float
) -> dict[WorkerLink, NoAnswer]:
    """Wait for answers of the wanted type; return the workers that gave none, and why. Blocks for `seconds` at most."""
    wait(answers.values(), seconds)
    failures = {}
    for link, answer in answers.items():
        try:
            require_answer(answer, wanted, 0.0)
        except NoAnswer as error:
            failures[link] = error if answer.done() else NoAnswer(f"it has not answered for {seconds:.3g} s")
    return failures
