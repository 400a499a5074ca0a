"""The audit hook: it ends a host whose Python code does what no sound model does, and never ends a sound model.

Deeds are done in forks of one process: it has imported what a deed may need, and a fork costs a hundredth of a start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import joblib
import pytest

from serving import sandbox
from serving.domain.last_words import ENDED_ITSELF
from serving.domain.version import Format
from tests.hostile.gadgets import runs_code
from tests.sound import Fitted, boosters, compositions, every_kind
from tests.unit.sandbox import watched

WATCH = """
import sys
{before}
from serving import sandbox
sandbox.watch(lambda words: sys.stdout.write(words + chr(10)) and sys.stdout.flush())
{deed}
print("nothing happened")
"""
# forks for each script that is given to it, and says how that ended
FORK = """
import json, os, sys
from serving import sandbox

def run(script):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1)
        try:
            exec(compile(script, "deed", "exec"), {"__name__": "__main__"})
            sys.stdout.flush()
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.strip()

print(json.dumps({name: run(script) for name, script in json.load(sys.stdin).items()}))
"""

# what is done: what has to be there before, the deed, and what is said of it
DEEDS: dict[str, tuple[str, str, str]] = {
    "compile": ("", "compile('1', 'x', 'eval')", "run code (compile)"),
    "evaluate": ("", "eval('1 + 1')", "run code (compile)"),
    "execute what is compiled": ("code = compile('1', 'x', 'exec')", "exec(code)", "run code (exec)"),
    "make code": ("f = (lambda: 1).__code__", "f.replace(co_name='x')", "run code (code.__new__)"),
    "make a function": (
        "import types; code = (lambda: 1).__code__", "types.FunctionType(code, {})", "run code (function.__new__)",
    ),
    "change a function": ("def f(): pass", "f.__code__ = (lambda: 1).__code__", "change a function (__code__)"),
    "change what a function binds": ("def f(a=1): pass", "f.__defaults__ = (2,)", "change a function (__defaults__)"),
    "read code": ("import marshal; raw = marshal.dumps(1)", "marshal.loads(raw)", "run code (marshal.loads)"),
    "import": ("", "import antigravity", "import 'antigravity'"),
    "import a part": ("", "import xml.dom.minidom", "import 'xml"),
    "import a library": ("import _imp, importlib.machinery", "import _lsprof", "import '_lsprof'"),
    "unpickle": (
        "import pickle; raw = pickle.dumps(print)", "pickle.loads(raw)", "unpickle builtins.print",
    ),
    "write": ("", "open('/tmp/never-made', 'w')", "open 'never-made' for writing"),
    "append": ("", "open('/tmp/never-made', 'ab')", "open 'never-made' for writing"),
    "write by descriptor": (
        "import os", "os.open('/tmp/never-made', os.O_RDWR | os.O_CREAT)", "open 'never-made' for writing",
    ),
    "truncate": ("import os", "os.truncate('/tmp/never-made', 0)", "change files (os.truncate)"),
    "remove": ("import os", "os.remove('/tmp/never-made')", "change files (os.remove)"),
    "rename": ("import os", "os.rename('/tmp/never-made', '/tmp/x')", "change files (os.rename)"),
    "change a mode": ("import os", "os.chmod('/tmp/never-made', 0o777)", "change files (os.chmod)"),
    "make a directory": ("import os", "os.mkdir('/tmp/never-made')", "change files (os.mkdir)"),
    "link": ("import os", "os.symlink('/tmp/a', '/tmp/never-made')", "change files (os.symlink)"),
    "remove a tree": ("import shutil", "shutil.rmtree('/tmp/never-made')", "change files (shutil.rmtree)"),
    "connect": ("import socket", "socket.socket()", "use the network (socket.__new__)"),
    "look a name up": (
        "import socket, encodings.idna",
        "socket.gethostbyname('localhost')",
        "use the network (socket.gethostbyname)",
    ),
    "start a program": ("import subprocess", "subprocess.Popen(['true'])", "start a process (subprocess.Popen)"),
    "run a shell": ("import os", "os.system('true')", "start a process or call a library (os.system)"),
    "become a program": ("import os", "os.execv('/bin/true', ['true'])", "start a process or call a library (os.exec)"),
    "fork": ("import os", "os.fork()", "start a process (os.fork)"),
    "load a library": ("import ctypes", "ctypes.CDLL('libm.so.6')", "load the library 'libm.so.6'"),
    "find a function": (
        "import ctypes; libc = ctypes.CDLL(None)", "libc.system", "call the function 'system' of a library",
    ),
    "watch as well": ("", "sys.addaudithook(print)", "look into the interpreter (sys.addaudithook)"),
    "trace": ("", "sys.settrace(print)", "look into the interpreter (sys.settrace)"),
    "look at all objects": ("import gc", "gc.get_objects()", "look into the interpreter (gc.get_objects)"),
    "open a database": ("import sqlite3", "sqlite3.connect(':memory:')", "change files (sqlite3.connect)"),
}  # fmt: skip
HARMLESS = {
    "read": "open('/etc/hostname').close()",
    "write nowhere": "open('/dev/null', 'w').close()",
    "import what is there": "import json",
    "compute": "import math; sum(map(math.sqrt, range(10)))",
    "start a thread": "import threading; t = threading.Thread(target=int); t.start(); t.join()",
    "raise": "exec_ = None\ntry:\n    [][1]\nexcept IndexError:\n    pass",
}


@pytest.fixture(scope="module")
def watched_acts() -> dict[str, tuple[int, str]]:
    """Return how each watched process ended after its act, and what it wrote."""
    scripts = {name: WATCH.format(before=before, deed=deed) for name, (before, deed, _) in DEEDS.items()}
    for name, deed in HARMLESS.items():
        scripts[name] = WATCH.format(before="import json, math, threading", deed=deed)
    done = subprocess.run(
        [sys.executable, "-c", FORK], check=True, capture_output=True, text=True, input=json.dumps(scripts)
    )
    return {name: tuple(ending) for name, ending in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", DEEDS)
def test_a_forbidden_act_ends_the_process(watched_acts: dict[str, tuple[int, str]], name: str) -> None:
    said = DEEDS[name][2]
    status, words = watched_acts[name]
    assert (status, words[: len(said)]) == (ENDED_ITSELF, said)
    assert "nothing happened" not in words
    assert not Path("/tmp/never-made").exists()


@pytest.mark.parametrize("name", HARMLESS)
def test_an_ordinary_act_is_allowed(watched_acts: dict[str, tuple[int, str]], name: str) -> None:
    assert watched_acts[name] == (0, "nothing happened")


def test_forks_are_allowed_for_replicas() -> None:
    script = "import os, sys\nfrom serving import sandbox\nsandbox.watch(print, may_fork=True)\nos._exit(os.fork() < 0)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# --- the models -------------------------------------------------------------------------------------------------------


def find_endings(models: Iterable[Fitted], directory: Path, task: str) -> dict[str, tuple[int, str]]:
    """Return how the watched processes of models ended after all that the models can do."""
    names: dict[str, str] = {}
    for place, fitted in enumerate(models):
        joblib.dump(fitted.estimator, directory / str(place))
        names[str(place)] = str(fitted)
    (directory / "index.json").write_text(json.dumps([(name, Format.JOBLIB) for name in names]))
    return {names[name]: ending for name, ending in run_watched(directory, task).items()}


def run_watched(directory: Path, task: str) -> dict[str, tuple[int, str]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.unit.sandbox.watched", str(directory), task],
        check=True, capture_output=True, text=True, cwd=Path(__file__).parents[3],
        env=sandbox.scrub_environment(os.environ),
    )  # fmt: skip
    return {name: tuple(ending) for name, ending in json.loads(done.stdout).items()}


def assert_all_went_on(endings: dict[str, tuple[int, str]]) -> None:
    assert {name: ending for name, ending in endings.items() if ending[0] not in (0, watched.REFUSED)} == {}
    assert sum(status == 0 for status, _ in endings.values()) > len(endings) / 2


@pytest.fixture(scope="module")
def booster_models() -> list[Fitted]:
    return list(boosters())


@pytest.mark.filterwarnings("ignore")
def test_no_sound_model_is_ended_while_it_answers(booster_models: list[Fitted], tmp_path: Path) -> None:
    models = [*every_kind(slice(0, None, 4)), *booster_models[::4]]
    assert len(models) > 60
    assert_all_went_on(find_endings(models, tmp_path, "answer"))


@pytest.mark.filterwarnings("ignore")
def test_no_sound_model_is_ended_while_it_is_compiled(booster_models: list[Fitted], tmp_path: Path) -> None:
    models = [*every_kind(slice(1, None, 32)), *booster_models[1::32]]
    assert len(models) > 8
    assert_all_went_on(find_endings(models, tmp_path, "compile"))


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["answer", "compile"])
def test_many_models_are_not_ended(task: str, tmp_path: Path) -> None:
    assert_all_went_on(find_endings([*every_kind(), *boosters(), *compositions()], tmp_path, task))


def test_the_hook_ends_a_gadget_that_passed_the_file_check(tmp_path: Path) -> None:
    """Without the check of attributes the chain of gadgets is loaded, and ended when it runs its code."""
    marker = tmp_path / "marker"
    joblib.dump(runs_code(f"open({str(marker)!r}, 'w').close()"), tmp_path / "0")
    (tmp_path / "index.json").write_text(json.dumps([("0", Format.JOBLIB)]))
    status, said = run_watched(tmp_path, "blind")["0"]
    assert status == ENDED_ITSELF, said
    assert "for writing" in said or "change files" in said
    assert not marker.exists()
