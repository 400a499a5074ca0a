"""The layers around a host, tried from inside: what a model's code could do is done, in a forked process."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.domain.sandbox import LAYERS, Sandbox
from serving.host import sandbox
from serving.host.sandbox import landlock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

NOBODY = 65534
BUDGET = 1 << 30
IDENTITIES = ["ordinary", pytest.param("root", marks=pytest.mark.skipif(os.getuid() != 0, reason="needs root"))]
libc = ctypes.CDLL(None, use_errno=True)


def has_landlock() -> bool:
    try:
        return landlock.abi() >= 1
    except OSError:
        return False


needs_landlock = pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock")


class Cell:
    """Runs a function in a forked and sandboxed process, and returns the text it gives, or the error's name."""

    def __init__(self, directory: Path, identity: str) -> None:
        self.directory = directory
        self.identity = identity
        self.artefact = directory / "artefact"
        self.artefact.write_text("bytes of a model")
        self.secret = directory / "settings.toml"
        self.secret.write_text("admin_token")
        self.scratch = directory / "scratch"
        self.scratch.mkdir()
        for path in (directory, self.artefact, self.secret, self.scratch):
            path.chmod(0o777)

    def run(self, act: Callable[[], object], *, may_fork: bool = False) -> str:
        return self.enter(act, may_fork=may_fork)[0]

    def enter(self, act: Callable[[], object], *, may_fork: bool = False) -> tuple[str, Sandbox]:
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                if self.identity == "ordinary" and os.getuid() == 0:
                    os.setgroups([])
                    os.setresgid(NOBODY, NOBODY, NOBODY)
                    os.setresuid(NOBODY, NOBODY, NOBODY)
                held = sandbox.enter([str(self.artefact)], str(self.scratch), BUDGET, parent)
                if not may_fork:
                    sandbox.forbid_processes(held)
                try:
                    said = str(act())
                except OSError as error:
                    said = errno.errorcode.get(error.errno or 0, str(error))
                os.write(writing, f"{said}\n{held.model_dump_json()}".encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            said, _, layers = file.read().decode().partition("\n")
        os.waitpid(pid, 0)
        return said, Sandbox.model_validate_json(layers)


@pytest.fixture(params=IDENTITIES)
def cell(tmp_path: Path, request: pytest.FixtureRequest) -> Cell:
    for path in (tmp_path, *tmp_path.parents[:-2]):  # not /tmp and not the root
        if path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o055)  # an ordinary user must get there
    return Cell(tmp_path, request.param)


@needs_landlock
def test_every_layer_is_said_to_be_there_or_why_not(cell: Cell) -> None:
    _, held = cell.enter(lambda: None)
    assert {*held.active, *held.missing} == set(LAYERS)
    assert held.is_whole, held.missing


@needs_landlock
def test_it_reads_its_artefact_and_libraries_and_nothing_else(cell: Cell) -> None:
    assert cell.run(cell.artefact.read_text) == "bytes of a model"
    assert cell.run(lambda: len(list(Path("/usr/lib").iterdir())) > 0) == "True"
    assert cell.run(cell.secret.read_text) == "EACCES"
    assert cell.run(lambda: list(cell.directory.iterdir())) == "EACCES"
    assert cell.run(lambda: Path("/etc/passwd").read_text()) == "EACCES"
    assert cell.run(lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes()) == "EACCES"
    assert cell.run(lambda: int(Path("/proc/self/statm").read_text().split()[0]) > 0) == "True"


@needs_landlock
def test_what_lies_beside_the_package_in_a_checkout_is_not_a_library(cell: Cell) -> None:
    beside = Path(sandbox.__file__).parents[3] / "pyproject.toml"
    if not beside.exists():
        pytest.skip("not run from a checkout")
    assert cell.run(beside.read_text) == "EACCES"


@needs_landlock
def test_it_writes_into_its_scratch_directory_only(cell: Cell) -> None:
    assert cell.run(lambda: (cell.scratch / "file").write_text("12")) == "2"
    assert cell.run(lambda: cell.artefact.write_text("other")) == "EACCES"
    assert cell.run(lambda: (cell.directory / "new").write_text("")) == "EACCES"
    assert cell.run(cell.secret.unlink) in ("EACCES", "EXDEV")
    assert cell.run(lambda: os.truncate(cell.artefact, 0)) == "EPERM"
    assert cell.artefact.read_text() == "bytes of a model"


def test_it_has_no_network_not_even_its_own(cell: Cell) -> None:
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            assert cell.run(lambda family=family, kind=kind: socket.socket(family, kind)) == "EPERM"
    assert cell.run(socket.socketpair) == "EPERM"


def test_it_starts_threads_but_no_processes_and_no_programs(cell: Cell) -> None:
    def count_in_thread() -> int:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(42))
        thread.start()
        thread.join()
        return found[0]

    assert cell.run(count_in_thread) == "42"
    assert cell.run(fork_without_handlers) == "EPERM"
    assert cell.run(lambda: os.posix_spawn("/bin/true", ["true"], {})) == "EPERM"
    assert cell.run(lambda: os.execv("/bin/true", ["true"]), may_fork=True) in ("EPERM", "EACCES")


def test_what_may_fork_may_do_so_until_it_is_forbidden(cell: Cell) -> None:
    def fork() -> str:
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    assert cell.run(fork, may_fork=True) == "7"


def test_it_signals_itself_and_nobody_else(cell: Cell) -> None:
    assert cell.run(lambda: os.kill(os.getpid(), 0)) == "None"
    assert cell.run(lambda: os.kill(os.getppid(), 0)) == "EPERM"
    assert cell.run(lambda: os.kill(-1, 0)) == "EPERM"
    assert cell.run(lambda: os.pidfd_open(os.getppid())) == "EPERM"


def test_it_changes_neither_other_processes_nor_what_holds_it(cell: Cell) -> None:
    def prctl(option: int, value: int) -> str:
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "")
        return "done"

    assert cell.run(lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))) == "EPERM"
    assert cell.run(lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)) == "EPERM"
    assert cell.run(lambda: os.setpriority(os.PRIO_PROCESS, 0, 19)) == "None"
    assert cell.run(lambda: prctl(1, 0)) == "EPERM"  # PR_SET_PDEATHSIG
    assert cell.run(lambda: os.chroot("/")) == "EPERM"
    assert cell.run(lambda: _syscall(272 if os.uname().machine == "x86_64" else 97, 0)) == "EPERM"  # unshare
    assert cell.run(lambda: _syscall(425, 1, 0)) == "EPERM"  # io_uring_setup


def test_memory_descriptors_and_files_have_limits(cell: Cell) -> None:
    assert cell.run(lambda: resource.getrlimit(resource.RLIMIT_CORE)) == "(0, 0)"
    assert int(cell.run(lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[1])) <= 512
    assert int(cell.run(lambda: resource.getrlimit(resource.RLIMIT_FSIZE)[1])) == 256 << 20

    def hoard() -> str:
        try:
            return str(len(bytearray(2 * BUDGET)))
        except MemoryError:
            return "MemoryError"

    assert cell.run(hoard) == "MemoryError"


def test_it_holds_no_capability_to_change_anything(cell: Cell) -> None:
    def capabilities() -> str:
        lines = Path("/proc/self/status").read_text().splitlines()
        return " ".join(line.split()[1] for line in lines if line.startswith(("CapEff", "CapPrm")))

    reads_whatever_the_mode = 1 << 2  # root in somebody's home
    assert {int(each, 16) for each in cell.run(capabilities).split()} <= {0, reads_whatever_the_mode}


def test_descriptors_that_were_inherited_are_closed(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file, (tmp_path / "kept").open("w") as kept:
        pid = os.fork()
        if pid == 0:
            os.set_inheritable(file.fileno(), True)
            sandbox.close_all_but([kept.fileno()])
            is_closed = not Path(f"/proc/self/fd/{file.fileno()}").exists()
            is_open = Path(f"/proc/self/fd/{kept.fileno()}").exists()
            os._exit(0 if is_closed and is_open else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_environment_of_a_zygote_holds_no_setting_of_the_server() -> None:
    scrubbed = sandbox.scrub({"SERVING_SECURITY__ADMIN_TOKEN": "x", "PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "y"})
    assert scrubbed["PATH"] == "/bin"
    assert not {"SERVING_SECURITY__ADMIN_TOKEN", "AWS_SECRET_ACCESS_KEY"} & scrubbed.keys()


def test_a_layer_that_cannot_be_had_is_told_with_its_reason(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(landlock, "restrict", refuse)
    monkeypatch.setenv("SERVING_LOG__LEVEL", "info")
    said, held = cell.enter(cell.secret.read_text)
    assert said == "admin_token"
    assert held.missing["landlock"] == "Operation not supported"
    assert "SERVING_LOG__LEVEL is set" in held.missing["environment"]
    assert not held.is_whole
    assert "no landlock (Operation not supported)" in str(held)


def fork_without_handlers() -> str:
    """Fork as the C library does, but without what other libraries of this process have registered for a fork."""
    return _syscall(56 if os.uname().machine == "x86_64" else 220, 0x1200011, 0, 0, 0, 0)


def _syscall(number: int, *arguments: int) -> str:
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "done"
