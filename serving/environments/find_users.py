"""Finds the processes that run in an environment: a removal would take files away that their hosts still open."""

from __future__ import annotations

import os
from pathlib import Path


def find_users(directory: Path) -> list[int]:
    """Return the processes whose interpreter is in `directory`, as far as this user can see; none without ``/proc``."""
    wanted = directory.resolve() / "bin"
    return sorted(
        int(process.name) for process in Path("/proc").glob("[0-9]*") if _interpreter_place(process) == wanted
    )


def _interpreter_place(process: Path) -> Path | None:
    """Return the directory of the interpreter as the process was started with it: the file itself may be a link."""
    try:
        first = (process / "cmdline").read_bytes().partition(b"\0")[0]
    except OSError:  # it has ended
        return None
    return Path(os.fsdecode(first)).parent.resolve() if first.startswith(b"/") else None
