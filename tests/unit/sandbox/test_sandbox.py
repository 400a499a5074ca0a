"""The layers around a host, tested from inside: a forked process tries what the code of a model could do."""

from __future__ import annotations

import _thread
import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving import sandbox
from serving.domain.sandbox import LAYERS, Sandbox
from serving.sandbox import landlock, namespaces, seccomp, syscalls, tasks
from tests.e2e.harness import MATERIAL  # where burglar is found

assert str(MATERIAL) in sys.path
import burglar  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

NOBODY = 65534
BUDGET = 1 << 30
IDENTITIES = ["ordinary", pytest.param("root", marks=pytest.mark.skipif(os.getuid() != 0, reason="needs root"))]
libc = ctypes.CDLL(None, use_errno=True)


def has_landlock() -> bool:
    try:
        return landlock.read_abi() >= 1
    except OSError:
        return False


needs_landlock = pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock")


class Cell:
    """Runs a function in a forked and sandboxed process, and returns its text, or the name of its error."""

    def __init__(self, directory: Path, identity: str) -> None:
        self.directory = directory
        self.identity = identity
        self.artefact = directory / "artefact"
        self.artefact.write_text("bytes of a model")
        self.secret = directory / "settings.toml"
        self.secret.write_text("admin_token")
        self.scratch = directory / "scratch"
        self.scratch.mkdir()
        self.place = directory / "house-1"  # a number of a port where nobody listens
        self.place.mkdir()
        (self.place / "secret").write_text("admin_token")
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o777)
            if identity == "ordinary" and os.getuid() == 0:
                os.chown(path, NOBODY, NOBODY)  # its owner may do anything to it, were it not for the sandbox

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
                sandbox.move_into(str(self.scratch))
                held = sandbox.enter([str(self.artefact)], str(self.scratch), BUDGET, parent)
                if not may_fork:
                    sandbox.forbid_processes(held)
                try:
                    said = str(act())
                except OSError as error:
                    said = errno.errorcode.get(error.errno or 0, str(error))
                except Exception as error:  # noqa: BLE001  (a deed may raise anything)
                    said = str(error)
                os.write(writing, f"{said}\n{held.model_dump_json()}".encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            said, _, layers = file.read().decode().partition("\n")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status < 0:
            return signal.Signals(-status).name, Sandbox()
        return said, Sandbox.model_validate_json(layers)

    def picture(self) -> list[object]:
        """Return the state of all files outside the scratch directory, except their times of access."""
        paths = [self.directory, *(path for path in self.directory.rglob("*") if self.scratch not in path.parents)]
        return [(path, *_inode(path), path.read_bytes() if path.is_file() else None) for path in sorted(paths)]


def _inode(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    times = (found.st_mtime_ns, found.st_ctime_ns) if path.name != "scratch" else ()
    attributes = [(name, os.getxattr(path, name)) for name in os.listxattr(path)]
    return (found.st_mode, found.st_uid, found.st_gid, found.st_nlink, *times, attributes)


@pytest.fixture(params=IDENTITIES)
def cell(request: pytest.FixtureRequest) -> Iterator[Cell]:
    """A cell that an ordinary user can enter: pytest closes its own directories at the start of every run."""
    with tempfile.TemporaryDirectory(prefix="cell-") as directory:
        yield Cell(Path(directory), request.param)


@needs_landlock
def test_every_layer_is_active_or_missing_with_a_reason(cell: Cell) -> None:
    _, held = cell.enter(lambda: None)
    assert {*held.active, *held.missing} == set(LAYERS)
    assert held.is_whole, held.missing


@needs_landlock
def test_it_reads_only_its_artefact_and_libraries(cell: Cell) -> None:
    assert cell.run(cell.artefact.read_text) == "bytes of a model"
    assert cell.run(lambda: len(list(Path("/usr/lib").iterdir())) > 0) == "True"
    assert cell.run(cell.secret.read_text) == "EACCES"
    assert cell.run(lambda: list(cell.directory.iterdir())) == "EACCES"
    assert cell.run(lambda: Path("/etc/passwd").read_text()) == "EACCES"
    assert cell.run(lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes()) == "EACCES"
    assert cell.run(lambda: int(Path("/proc/self/statm").read_text().split()[0]) > 0) == "True"


@needs_landlock
def test_files_beside_the_package_in_a_checkout_are_not_readable(cell: Cell) -> None:
    beside = Path(sandbox.__file__).parents[2] / "pyproject.toml"
    if not beside.exists():
        pytest.skip("not run from a checkout")
    assert cell.run(beside.read_text) == "EACCES"


@needs_landlock
def test_it_writes_only_into_its_scratch_directory(cell: Cell) -> None:
    assert cell.run(lambda: (cell.scratch / "file").write_text("12")) == "2"
    assert cell.run(lambda: cell.artefact.write_text("other")) == "EACCES"
    assert cell.run(lambda: (cell.directory / "new").write_text("")) == "EACCES"
    assert cell.run(cell.secret.unlink) in ("EACCES", "EXDEV")
    assert cell.run(lambda: os.truncate(cell.artefact, 0)) == "EPERM"
    assert cell.artefact.read_text() == "bytes of a model"


def test_it_has_no_network_and_no_loopback(cell: Cell) -> None:
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
    assert cell.run(burglar.fork_by_hand) == "EPERM"
    assert cell.run(lambda: os.posix_spawn("/bin/true", ["true"], {})) == "EPERM"
    assert cell.run(lambda: os.execv("/bin/true", ["true"]), may_fork=True) in ("EPERM", "EACCES")


def test_a_process_may_fork_until_it_is_forbidden(cell: Cell) -> None:
    def fork() -> str:
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    assert cell.run(fork, may_fork=True) == "7"


def test_it_signals_only_itself(cell: Cell) -> None:
    assert cell.run(lambda: os.kill(os.getpid(), 0)) == "None"
    assert cell.run(lambda: os.kill(os.getppid(), 0)) == "EPERM"
    assert cell.run(lambda: os.kill(-1, 0)) == "EPERM"
    assert cell.run(lambda: os.pidfd_open(os.getppid())) == "EPERM"


def test_it_changes_neither_other_processes_nor_its_own_limits(cell: Cell) -> None:
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


# --- somebody who runs any code ---------------------------------------------------------------------------------------

TRIED_HERE = [deed for deed in burglar.DEEDS if deed not in ("kill its parent", "kill all")]  # which is this process


@needs_landlock
@pytest.mark.parametrize("deed", TRIED_HERE)
def test_each_attack_is_refused_in_every_way(cell: Cell, deed: str) -> None:
    before = cell.picture()
    assert cell.run(lambda: burglar.DEEDS[deed](cell.place)) in ("EPERM", "EACCES", "ENOSYS")
    assert cell.picture() == before


@needs_landlock
@pytest.mark.parametrize("version", range(1, 8))
def test_each_landlock_version_with_seccomp_keeps_the_promise(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    if version > landlock.read_abi():
        pytest.skip("newer than this kernel")
    monkeypatch.setattr(landlock, "read_abi", lambda: version)
    before = cell.picture()
    deeds = (*burglar.BY_LANDLOCK, "signal others", "open sockets", "have signals sent")

    def try_all() -> str:
        """Try one after another in one process: to fork this one takes longer than all of them."""
        return ",".join(map(attempt, deeds))

    def attempt(deed: str) -> str:
        try:
            return f"done: {burglar.DEEDS[deed](cell.place)}"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))

    said, held = cell.enter(try_all)
    ends = dict(zip(deeds, said.split(","), strict=True))
    assert {deed: end for deed, end in ends.items() if end not in ("EPERM", "EACCES", "ENOSYS")} == {}
    assert held.is_whole
    assert cell.picture() == before


@needs_landlock
@pytest.mark.parametrize("version", range(1, 8))
def test_without_seccomp_an_old_landlock_counts_as_missing(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSYS, "no filter for linux on riscv64")

    if version > landlock.read_abi():
        pytest.skip("newer than this kernel")
    monkeypatch.setattr(landlock, "read_abi", lambda: version)
    monkeypatch.setattr(seccomp, "allow_needed_calls", refuse)
    said, held = cell.enter(cell.secret.read_text)
    assert said == "EACCES", "it is put on all the same"
    assert held.missing["seccomp"] == "no filter for linux on riscv64"
    if version < 6:
        assert f"ABI {version} and does not refuse" in held.missing["landlock"]
        assert "signals and abstract sockets (ABI 6)" in held.missing["landlock"]
        assert ("the truncation of files" in held.missing["landlock"]) is (version < 3)
        assert "landlock" not in held.active
    else:
        assert "landlock" in held.active


def test_every_call_that_is_not_on_the_list_is_refused(cell: Cell) -> None:
    """The kernel refuses them here; test_seccomp checks the filter for the other architecture."""
    column = 0 if os.uname().machine == "x86_64" else 1
    listed = {numbers[column] for name, numbers in vars(syscalls).items() if name.isupper() and _is_pair(numbers)}
    listed |= {numbers[column] for numbers in syscalls.ALLOWED.values()}
    assert 100 < len(listed) < 140
    past_every_filter = {335, 336} if column == 0 else set()  # (u(ret)probe: a signal to who did not come by a probe)
    asked = sorted(set(range(600)) - listed - past_every_filter)

    def is_answered(number: int) -> bool:
        result = libc.syscall(number, -1, -1, -1, -1, -1, -1)
        return result != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS)

    assert cell.run(lambda: [number for number in asked if is_answered(number)]) == "[]"


def _is_pair(numbers: object) -> bool:
    return isinstance(numbers, tuple) and len(numbers) == 2


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86 has two ways to call")
def test_a_call_of_the_32_bit_interface_kills_the_process(cell: Cell) -> None:
    def call() -> str:
        memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        memory.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, getpid; int 0x80; ret
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        return f"process {ctypes.CFUNCTYPE(ctypes.c_int)(address)()}"

    assert cell.run(call) in ("SIGSYS", "SIGSEGV")  # the latter where the kernel has no such calls


# --- how many ---------------------------------------------------------------------------------------------------------


def start_threads_without_end() -> str:
    """Start threads with the least memory possible, until the kernel refuses more."""
    threading.stack_size(32 << 10)
    stop = _thread.allocate_lock()
    stop.acquire()
    count = 0
    try:
        while count < 20_000:
            _thread.start_new_thread(stop.acquire, ())
            count += 1
    except RuntimeError:
        pass
    return str(count)


def test_the_number_of_threads_is_limited(cell: Cell) -> None:
    assert cell.enter(lambda: None)[1].is_whole
    assert tasks.MOST_TASKS - 10 < int(cell.run(start_threads_without_end)) < tasks.MOST_TASKS


def test_processes_and_their_threads_share_the_limit(cell: Cell) -> None:
    def fork_without_end() -> str:
        count, own = 0, os.getpid()
        try:
            while count < 2_000:
                if burglar.fork_by_hand() == 0:
                    sandbox.die_with_parent(own)
                    time.sleep(600)
                count += 1
        except BlockingIOError:
            pass
        return str(count)

    assert cell.enter(lambda: None)[1].is_whole
    assert int(cell.run(fork_without_end, may_fork=True)) < tasks.MOST_TASKS


def test_a_shared_count_raises_the_limit_above_all_tasks(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    if cell.identity == "root":
        pytest.skip("root has a user of its own")

    def refuse() -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(namespaces, "leave_the_network", refuse)
    sleeper = os.fork()
    if sleeper == 0:
        try:
            if os.getuid() == 0:
                os.setresuid(NOBODY, NOBODY, NOBODY)
            time.sleep(600)
        finally:
            os._exit(0)
    try:
        said, held = cell.enter(start_threads_without_end)
    finally:
        os.kill(sleeper, signal.SIGKILL)
        os.waitpid(sleeper, 0)
    assert "network_namespace" in held.missing
    assert held.is_whole
    threads = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    assert int(said) < tasks.MOST_TASKS + 2 * threads


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_the_layer_tasks_is_missing_if_root_stays_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "leave_count_of_root", lambda: None)
    _, held = Cell(tmp_path, "root").enter(lambda: None)
    assert "counts no threads of root" in held.missing["tasks"]
    assert not held.is_whole


def test_inherited_descriptors_are_closed(tmp_path: Path) -> None:
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
    scrubbed = sandbox.scrub_environment(
        {"SERVING_SECURITY__ADMIN_TOKEN": "x", "PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "y"}
    )
    assert scrubbed["PATH"] == "/bin"
    assert not {"SERVING_SECURITY__ADMIN_TOKEN", "AWS_SECRET_ACCESS_KEY"} & scrubbed.keys()


def test_a_missing_layer_is_reported_with_its_reason(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
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


def _syscall(number: int, *arguments: int) -> str:
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "done"


NICEST = """
import os
from serving import sandbox
from serving.sandbox import namespaces

os.setpriority(os.PRIO_PROCESS, 0, 19)
namespaces.forbid_new_privileges()
namespaces.drop_capabilities()
sandbox.lower_priority_of_this_thread()
print(os.getpriority(os.PRIO_PROCESS, 0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="niceness belongs to threads on Linux only")
def test_a_process_that_was_started_with_less_priority_keeps_that() -> None:
    """Without privileges it could not take more, and so no host of a server under `nice -n 19` would evaluate."""
    done = subprocess.run([sys.executable, "-c", NICEST], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "19"
