"""What happens to a server in a soak: swaps, and one method for each kind of fault."""

from __future__ import annotations

import contextlib
import pickle
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import numpy as np
import peculiar
import psutil
from sklearn.linear_model import LinearRegression

from serving.failpoints import POINTS
from tests.e2e.armed import Faults
from tests.e2e.harness import Server, constant, is_alive, until, write_version
from tests.e2e.hostile import Touch, good
from tests.e2e.record import Record
from tests.e2e.traffic import Traffic

MODELS = ("hosted", "compiled")


class Mishaps:
    """Two models, one that stays in its host and one that is compiled, and everything that may befall them.

    Each method ends when the newest version of both answers again, or fails. What it makes unavoidable it has the
    record excuse; where it excuses nothing, no client may notice anything.
    """

    def __init__(
        self, server: Server, faults: Faults, randomness: random.Random, record: Record, traffic: list[Traffic]
    ) -> None:
        self.server, self.faults, self.random, self.record, self.traffic = server, faults, randomness, record, traffic
        self.newest = dict.fromkeys(MODELS, 0)
        self.swaps = 0
        self.spoiled: set[tuple[str, int]] = set()
        self.sentinel = server.directory / "sentinel"
        self.kinds: tuple[Callable[[], None], ...] = (
            *(self.host_killed, self.zygote_killed, self.server_killed, self.server_killed_at_a_failpoint),
            *(self.server_stopped, self.bad_version, self.active_deleted, self.store_away, self.overwritten),
            *(self.pinned, self.rolled_back, self.disk_failed, self.watcher_died),
        )

    def drop(self, model: str) -> None:
        """Put the next version of a model into the store."""
        self.newest[model] += 1
        version = self.newest[model]
        line = LinearRegression() if model == "compiled" else constant(version)
        write_version(self.server.store / model, version, line.fit(np.zeros((2, 2)), [version, version]))

    def settle(self) -> None:
        """Wait until the newest version of each model answers."""
        for model, version in self.newest.items():
            self.server.wait_active(model, version)

    def swap(self) -> None:
        """Swap every model."""
        for model in MODELS:
            self.drop(model)
        self.settle()
        self.swaps += len(MODELS)

    def _any(self) -> str:
        return self.random.choice(MODELS)

    def host_killed(self) -> None:
        """Nobody notices: what was in flight is asked again."""
        self._kill_a_host()
        self.swap()

    def _kill_a_host(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # a standby that has just been retired
            self.random.choice(self.server.hosts()).kill()

    def zygote_killed(self) -> None:
        """Every host goes with it; until another zygote has imported everything, requests wait or find no room."""
        assert self.server.process is not None
        children = self.server.processes()
        with self.record.excuse(503):
            for zygote in psutil.Process(self.server.process.pid).children():
                zygote.kill()
            until(lambda: not any(map(is_alive, children)), "the end of zygote and hosts")
            until(lambda: self.server.predict("hosted").status_code == 200, "the model answering again")
        self.swap()

    def server_killed(self) -> None:
        """At any time while two versions are on their way."""
        for model in MODELS:
            self.drop(model)
        time.sleep(self.random.uniform(0, 0.4))  # a random moment is the point
        with self.record.excuse(0, 503):
            self.server.kill()
            self._start_again()

    def server_killed_at_a_failpoint(self) -> None:
        """At a chosen one; a point that is not passed this time is passed over."""
        point = self.random.choice(POINTS)
        assert self.server.process is not None
        with self.record.excuse(0, 503):
            self.faults.arm(point, "kill", self.random.randint(1, 2))
            self._kill_a_host()
            for model in MODELS:
                self.drop(model)
            try:
                assert self.server.process.wait(3) == -signal.SIGKILL
            except subprocess.TimeoutExpired:
                if self.faults.disarm(point):
                    self.settle()
                    return
                assert self.server.process.wait(30) == -signal.SIGKILL  # it has come to the point in this moment
            self._start_again()

    def server_stopped(self) -> None:
        """SIGTERM: it ends with 0, whatever is under way."""
        for model in MODELS:
            self.drop(model)
        with self.record.excuse(0, 503):
            assert self.server.stop() == 0
            self._start_again()

    def _start_again(self) -> None:
        self.server.start(wait_ready=True)
        for one in self.traffic:
            one.url = self.server.url
        self.settle()

    def bad_version(self) -> None:
        """A version that must not go live, and at once or a little later a good one."""
        model = self._any()
        self.newest[model] += 1
        version, directory = self.newest[model], self.server.store / model
        kinds = (
            peculiar.CrashesWhileLoading,
            peculiar.ExitsWhileLoading,
            peculiar.NotFinite,
            peculiar.HangsWhileLoading,
        )
        raw = good()
        choice = self.random.randrange(len(kinds) + 4)
        if choice < len(kinds):
            write_version(directory, version, constant(version, kinds[choice]))
        else:
            bad = (raw[: len(raw) // 2], bytes(len(raw)), b"", pickle.dumps(Touch(self.sentinel)))[choice - len(kinds)]
            (directory / f"{version}.joblib").write_bytes(bad)
        time.sleep(self.random.uniform(0, 0.3))
        self.swap()

    def active_deleted(self) -> None:
        """The next best answers until there is another."""
        model = self._any()
        with self.record.excuse(may_go_back=True):
            shutil.rmtree(self.server.store / model / str(self.newest[model]))
            until(lambda: self.server.active(model) != str(self.newest[model]), "the next best")
            self.swap()

    def store_away(self) -> None:
        """Renamed or replaced by an empty directory, for a while; what is served goes on being served."""
        away = self.server.store.with_name("away")
        self.server.store.rename(away)
        if self.random.random() < 0.5:
            self.server.store.mkdir()
            until(lambda: self.server.get("/models/hosted/active")["active"]["note"], "a note about the files")
            self.server.store.rmdir()
        else:
            until(lambda: not self.server.get("/models")["store"]["is_available"], "the store being missed")
        away.rename(self.server.store)
        self.swap()

    def overwritten(self) -> None:
        """The active version's file becomes rubbish in place; the verified copy answers."""
        model = self._any()
        self.spoiled.add((model, self.newest[model]))
        with (self.server.store / model / str(self.newest[model]) / "model.joblib").open("r+b") as file:
            file.write(b"rubbish" * 100)
        time.sleep(self.random.uniform(0, 0.3))
        self.swap()

    def pinned(self) -> None:
        """To an older version, loaded or not, and back."""
        model = self._any()
        older = str(self.newest[model] - 1)
        if (model, self.newest[model] - 1) in self.spoiled or not (
            self.server.store / model / older / "model.joblib"
        ).exists():
            return
        with self.record.excuse(may_go_back=True):
            if self.server.operate("POST", f"/models/{model}/pin", {"version": older}).status_code == 200:
                self.server.wait_active(model, older)
            assert self.server.operate("DELETE", f"/models/{model}/pin").status_code == 200
            self.settle()

    def rolled_back(self) -> None:
        """And released again."""
        model = self._any()
        with self.record.excuse(may_go_back=True):
            assert self.server.operate("POST", f"/models/{model}/rollback").status_code in (200, 409)
            self.drop(model)
            self.settle()

    def disk_failed(self) -> None:
        """Full or forbidden, wherever anything is read or written, for a while."""
        point = self.random.choice(("before-staging", "cache-write", "listing", "state-write"))
        self.faults.arm(point, self.random.choice(("ENOSPC", "EACCES")))
        for model in MODELS:
            self.drop(model)
        until(lambda: self.faults.has_struck(point), f"the fault at {point}")
        time.sleep(self.random.uniform(0, 0.5))
        self.faults.disarm(point)
        self.settle()

    def watcher_died(self) -> None:
        """The next resync finds what no event tells, and begins another watch."""
        self.faults.arm("event", "EIO")
        self.drop(self._any())
        until(lambda: self.faults.has_struck("event"), "an event")
        self.faults.disarm("event")
        self.settle()
