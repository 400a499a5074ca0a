"""How many requests a bad canary costs until it has gone back by itself."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import joblib
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from benchmarks.server import running
from tests.e2e.harness import TOKEN, Server, until

RATE, CONNECTIONS, SHARE = 500.0, 8, 10
PARTS = (1.0, 0.2, 0.05)
METHOD = """A pipeline of a one-hot encoder and a logistic regression answers {rate:g} requests/s of one row each over \
{connections} connections, open loop. Its successor is the same but for one thing: it was fitted without a category \
that the model before knows, and refuses it. A part of the requests, drawn by chance, has that category, so that the \
successor fails that part of what it is asked. `rollout.strategy = "canary"` with a first step of {share} %, all else \
by default but `replay.rows = 0`: with recent rows the gate `replay` refuses the successor before it serves. Each \
trial drops the successor under a new version number, counts the requests that the new version has failed until it is \
rolled back, and takes it back to its place; seconds are those from the canary's first answer to the rollback, in \
control's own time. Before the next trial an operator resumes, as two rollbacks in a row stop automation."""
COLOURS, LOST = ("red", "blue", "green"), "grey"


def run(run: Run) -> Result:
    """Let canaries fail."""
    trials = run.count(50, 2)
    found: list[tuple[str, list[float], list[float]]] = []
    settings = {
        "SERVING_ROLLOUT__STRATEGY": "canary",
        "SERVING_ROLLOUT__STEPS": f"{SHARE},50",
        "SERVING_REPLAY__ROWS": "0",
        "SERVING_SECURITY__ADMIN_TOKEN": TOKEN,
        "SERVING_STORE__MAX_VERSIONS": "1000",
    }
    directory = run.scratch / "server"
    publish(directory / "store", 1, colours=(*COLOURS, LOST))
    with running(directory, **settings) as server:
        server.wait_active("colours", 1)
        for part in PARTS[: run.count(len(PARTS), 1)]:
            outcomes = [_fail_once(server, part, _next_version(server)) for _ in range(trials)]
            found.append((f"{part:.0%}", [one[0] for one in outcomes], [one[1] for one in outcomes]))
    figures = []
    for part, failed, seconds in found:
        figures.append(figure(f"requests failed by a canary that fails {part}, until it is back", "", failed))
        figures.append(figure(f"from its first answer to the rollback, a canary that fails {part}", "s", seconds))
    rows = tuple((part, int(np.median(failed)), int(max(failed)), len(failed)) for part, failed, _ in found)
    return Result(
        name="rollouts",
        title="A canary that is worse",
        method=METHOD.format(rate=RATE, connections=CONNECTIONS, share=SHARE),
        figures=tuple(figures),
        tables=(Table("Requests failed until the canary is back", ("it fails", "median", "worst", "trials"), rows),),
    )


def make_pipeline_of_colours(colours: Sequence[str]) -> Pipeline:
    """Return a fitted classifier of one column of text, which knows these colours."""
    rows = pd.DataFrame({"colour": [*colours] * 20})
    return make_pipeline(OneHotEncoder(), LogisticRegression()).fit(rows, [name == COLOURS[0] for name in rows.colour])


def publish(store: Path, version: int, colours: Sequence[str]) -> None:
    """Put a version into the store by a rename."""
    aside = store / "colours" / f".{version}.aside"
    aside.mkdir(parents=True)
    joblib.dump(make_pipeline_of_colours(colours), aside / "model.joblib")
    aside.rename(store / "colours" / str(version))


def _next_version(server: Server) -> int:
    return 1 + max(int(one["version"]) for one in server.model("colours")["versions"])


def _fail_once(server: Server, part: float, version: int) -> tuple[float, float]:
    """Return how many requests a new version has failed until it was rolled back, and how long that took."""
    return asyncio.run(_Trial(server, part, version).run())


class _Trial:
    """One canary under load."""

    def __init__(self, server: Server, part: float, version: int) -> None:
        self._server, self._part, self._version = server, part, version
        self._random = random.Random(version)
        self._statuses: Counter[int] = Counter()
        self._is_over = False

    async def run(self) -> tuple[float, float]:
        clients = [asyncio.create_task(self._client()) for _ in range(CONNECTIONS)]
        rollout = await asyncio.to_thread(self._wait)
        self._is_over = True
        await asyncio.gather(*clients)
        failed = sum(count for status, count in self._statuses.items() if status != 200)
        return float(failed), rollout

    def _wait(self) -> float:
        publish(self._server.store, self._version, COLOURS)
        model = until(self._find_end, f"version {self._version} rolled back", 120.0, 0.05)
        history = self._server.get("/models/colours/history?limit=20")["history"]
        begun = next(one["at"] for one in history if one["version"] == str(self._version) and one["after"] == "CANARY")
        response = self._server.operate("POST", "/models/colours/rollout", {"action": "resume"})
        assert response.status_code in (200, 409), response.text
        return (pd.Timestamp(model["rollout"]["last"]["at"]) - pd.Timestamp(begun)).total_seconds()

    def _find_end(self) -> Any:
        model = self._server.model("colours")
        last = (model.get("rollout") or {}).get("last") or {}
        return model if last.get("version") == str(self._version) else None

    async def _client(self) -> None:
        address = urlsplit(self._server.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        due = time.monotonic()
        while not self._is_over:
            row = {"colour": LOST if self._random.random() < self._part else self._random.choice(COLOURS)}
            body = json.dumps({"instances": [row]}).encode()
            head = "POST /models/colours/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            lines = answer.lower().split(b"\r\n")
            fields = dict(line.split(b": ", 1) for line in lines[1:-2])
            await reader.readexactly(int(fields[b"content-length"]))
            if fields.get(b"x-model-version") == str(self._version).encode():
                self._statuses[int(lines[0].split()[1])] += 1
            due += CONNECTIONS / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        writer.close()
