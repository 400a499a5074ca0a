"""``serving`` with its failpoints armed: how tests start a server that is going to fail.

    python tests/e2e/armed.py FAULTS serve --store ...

Each point obeys a file of its name in the directory FAULTS: ``<action> <n>`` acts from the n-th time on that the point
is reached, and for as long as the file is there. Actions are ``kill`` (SIGKILL, once), ``pause`` (until the file is
gone) and names of errno. ``<point>.reached`` appears before the action. So tests change faults while the server runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sqlite3
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from serving.failpoints import POINTS, Point, arm

PAUSE_SECONDS = 0.01


@dataclass(frozen=True)
class Faults:
    """What tests write into FAULTS; the server may be running or not."""

    directory: Path

    def arm(self, point: Point, action: str, nth: int = 1) -> None:
        """Let something happen at `point` from the n-th time on that it is reached."""
        assert point in POINTS
        self.directory.mkdir(exist_ok=True)
        self._reached(point).unlink(missing_ok=True)
        aside = self.directory / f"{point}.aside"
        aside.write_text(f"{action} {nth}")
        aside.rename(self.directory / point)

    def disarm(self, point: Point) -> bool:
        """Let nothing happen at `point` any more; whoever is paused there goes on. Say whether it was still armed."""
        try:
            (self.directory / point).unlink()
        except FileNotFoundError:
            return False
        return True

    def has_struck(self, point: Point) -> bool:
        """Whether anything has happened at `point` since it was armed."""
        return self._reached(point).exists()

    def _reached(self, point: Point) -> Path:
        return self.directory / f"{point}.reached"


@dataclass
class _Obeying:
    """The action of one point: it does what the file says. `count` is of the times since the file was written."""

    point: Point
    file: Path
    written: tuple[int, int] = (0, 0)
    count: int = 0

    def __call__(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            found = self.file.stat()
            action, nth = self.file.read_text().split()
            before, self.written = self.written, (found.st_ino, found.st_mtime_ns)
            self.count = self.count + 1 if self.written == before else 1
            if self.count >= int(nth):
                self.file.with_name(f"{self.point}.reached").touch()
                self._act(action)

    def _act(self, action: str) -> None:
        if action == "kill":
            self.file.unlink()  # once: the next server comes past here, too
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "pause":
            while self.file.exists():
                time.sleep(PAUSE_SECONDS)
        elif self.point == "state-write":
            raise sqlite3.OperationalError(_OF_SQLITE[action])
        else:
            number = getattr(errno, action)
            raise OSError(number, os.strerror(number))


_OF_SQLITE = {"ENOSPC": "database or disk is full", "EACCES": "attempt to write a readonly database"}


def main() -> int:
    """Arm every point and become the command line that the other arguments ask for."""
    faults = Path(sys.argv.pop(1))
    for point in POINTS:
        arm(point, _Obeying(point, faults / point))
    from serving.cli import main as serve

    return serve()


if __name__ == "__main__":
    sys.exit(main())
