"""Describes an interpreter by running a small program with it once; imports none of its packages."""

from __future__ import annotations

import os
import platform
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

import serving
from serving import sandbox
from serving.domain.environment import OWN, Environment
from serving.domain.pinned_versions import normalize_name
from serving.domain.text import one_line
from serving.environments.known_distributions import SAME_AS

DESCRIBE_SECONDS = 30.0

_PROGRAM = Path(serving.__file__).parent / "host" / "describe_environment.py"
_MAX_BYTES = 4 << 20
_LOOK_SECONDS = 0.2
_END_SECONDS = 0.01  # between the end of its output and its own
_NO_PYTHON = "is no Python: it printed something else than its description"


class _Description(BaseModel):
    """What the program prints."""

    model_config = ConfigDict(extra="forbid", strict=True)

    python_version: str
    libraries: dict[str, str]
    modules: list[str]
    problem: str | None


class _NoDescription(Exception):  # an outcome, not an error
    """A program is not run to its end; the message says why."""


def describe_environment(
    name: str, python: Path, stamp: str = "", stopped: threading.Event | None = None
) -> Environment:
    """Return the environment of an interpreter, with its problem if no host can run there.

    Never raises for what the interpreter is or does. Blocks until it has ended: 0.2 s as a rule, at most
    DESCRIBE_SECONDS, and not after `stopped` is set. Any thread.
    """
    path = str(python.absolute())
    found = _run_program(path, stopped or threading.Event())
    if isinstance(found, str):
        return Environment(name, path, "", {}, frozenset(), one_line(found), stamp)
    return Environment(
        name=name,
        python=path,
        python_version=one_line(found.python_version),
        libraries=_add_aliases(found.libraries),
        modules=frozenset(found.modules),
        problem=None if found.problem is None else one_line(f"{path}: {found.problem}"),
        stamp=stamp,
    )


def describe_own_environment() -> Environment:
    """Return the environment of this process, without its modules. Blocks while it reads a file for each package."""
    found: dict[str, str] = {}
    for each in metadata.distributions():
        name, version = each.metadata["Name"], each.metadata["Version"]
        if name and version:
            found.setdefault(normalize_name(name), version)
    return Environment(OWN, sys.executable, platform.python_version(), _add_aliases(found), frozenset())


def _add_aliases(libraries: Mapping[str, str]) -> dict[str, str]:
    aliases = {SAME_AS[name]: version for name, version in libraries.items() if name in SAME_AS}
    return {**aliases, **libraries}


def _run_program(python: str, stopped: threading.Event) -> _Description | str:
    """Return the description, or what went wrong."""
    try:
        code, printed, errors = _run_bounded([python, "-I", "-B", str(_PROGRAM)], stopped)
    except FileNotFoundError:
        return f"{python} does not exist"
    except _NoDescription as error:
        return f"{python} {error}"
    except OSError as error:
        return f"{python} cannot be run: {error.strerror}"
    if code:
        last = errors.decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"{python} cannot be run (status {code}): {''.join(last) or 'it said nothing'}"
    try:
        return _Description.model_validate_json(printed)
    except ValidationError:
        return f"{python} {_NO_PYTHON}"


def _run_bounded(command: Sequence[str], stopped: threading.Event) -> tuple[int, bytes, bytes]:
    """Run a program and return its status, its output and its errors. Raises OSError when it cannot be run.

    Kills it and raises _NoDescription after DESCRIBE_SECONDS, when it prints too much, and once `stopped` is set.
    """
    ends_at = time.monotonic() + DESCRIBE_SECONDS
    with subprocess.Popen(
        command,
        env=sandbox.scrub_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
        try:
            with selectors.DefaultSelector() as selector:
                for descriptor in said:
                    selector.register(descriptor, selectors.EVENT_READ)
                while selector.get_map() or process.poll() is None:
                    if stopped.is_set():
                        raise _NoDescription("is not waited for, because the server stops")
                    if time.monotonic() > ends_at:
                        raise _NoDescription(f"did not describe itself within {DESCRIBE_SECONDS:.0f} s")
                    for key, _ in selector.select(_LOOK_SECONDS if selector.get_map() else _END_SECONDS):
                        piece = os.read(key.fd, 1 << 16)
                        said[key.fd] += piece
                        if not piece:
                            selector.unregister(key.fd)
                        elif len(said[key.fd]) > _MAX_BYTES:
                            raise _NoDescription(_NO_PYTHON)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    printed, errors = said.values()
    return process.returncode, bytes(printed), bytes(errors)
