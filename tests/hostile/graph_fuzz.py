"""Graphs with anything changed in them, given to a process that checks and uses them, and what became of each."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile.graph_corpus import Sound, mutated
from tests.hostile.graph_growth import grown

ROOT = Path(__file__).parents[2]


@dataclass
class Outcome:
    """How many graphs were refused, died in the check (no harm) or were served, and every harm that was done."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    harms: list[str] = field(default_factory=list)


class Worker:
    """One `graph_worker`, and the next when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def judge(self, sound: Sound, content: bytes) -> tuple[str, str]:
        """Return the last word about one graph, and the reason with it; ``died checking`` or ``died serving``."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        case = {
            "signature": sound.signature.model_dump(mode="json"),
            "outputs": sound.graph.outputs,
            "bytes": len(content),
        }
        process.stdin.write(json.dumps(case).encode() + b"\n" + content)
        process.stdin.flush()
        last = "checking"
        while True:
            word, _, reason = process.stdout.readline().decode().strip().partition(" ")
            if not word:
                self.end()
                return f"died {last}", f"status {process.returncode}"
            if word in ("refused", "served", "failed"):
                return word, reason
            last = word

    def end(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            command = [sys.executable, "-m", "tests.hostile.graph_worker"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
            )
        return self._process


def fuzz(corpus: Sequence[Sound], count: int, seed: int) -> Outcome:
    """Try so many mutants of graphs of a corpus, and grown ones; the same ones for the same seed. Blocks."""
    outcome, worker = Outcome(), Worker()
    try:
        for number in range(count):
            dice = random.Random(f"{seed}/{number}")
            sound = dice.choice(corpus) if number % 2 else grown(dice)
            graph = mutated(sound.graph, dice) if number % 2 else sound.graph
            word, reason = worker.judge(sound, bytes(graph.content))
            outcome.counts[word] += 1
            outcome.reasons[f"{word} {reason}"] += 1
            if word in ("died serving", "failed"):
                outcome.harms.append(f"seed {seed}/{number}, {sound.name}: {word} {reason}")
    finally:
        worker.end()
    return outcome
