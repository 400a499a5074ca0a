"""A model that may run any code, in a host of another environment: the same layers hold it there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import burglar
import numpy as np
import psutil
import pytest

from serving import sandbox
from serving.hosting.zygote import Zygote
from serving.rows.batch import Batch
from serving.sandbox import landlock
from tests.e2e.harness import MATERIAL
from tests.unit.hosting.hosted import ask, evaluate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
FIT = """
import sys
import burglar, joblib
model = burglar.Burglar(place=sys.argv[1], is_bold=True).fit([[0.0, 0.0]])
joblib.dump(model, sys.argv[2])
"""


@pytest.fixture(params=["oldest_python", "other_python"])
def python(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An interpreter with all that one of the other environments has, and the burglar."""
    real: Path = request.getfixturevalue(request.param)
    directory = tmp_path / "environment"
    subprocess.run([os.path.realpath(real), "-m", "venv", "--without-pip", directory], check=True)
    (borrowed,) = (real.parent.parent / "lib").glob("python*/site-packages")
    (site,) = (directory / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(f"{borrowed}\n{MATERIAL}\n")
    return directory / "bin" / "python"


@pytest.fixture
def door() -> Iterator[socket.socket]:
    """Listen, to see who comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def test_whatever_it_tries_there_fails(
    python: Path, door: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        landlock.read_abi()
    except OSError as error:
        pytest.skip(f"this kernel has no Landlock: {error.strerror}")
    place = tmp_path / f"treasure-{door.getsockname()[1]}"
    place.mkdir()
    (place / "secret").write_text("hush")
    subprocess.run([python, "-I", "-c", FIT, place, tmp_path / "m.joblib"], check=True)
    for name in ("SERVING_SECURITY__ADMIN_TOKEN", "PYTHONPATH", "PYTHONSTARTUP"):
        monkeypatch.setenv(name, str(place))
    zygote = Zygote(sandbox.scrub_environment(os.environ), tmp_path / "scratch", str(python))
    before = picture(python.parent.parent)
    try:
        host = zygote.spawn()
        report = evaluate(host, tmp_path / "m.joblib", pickle_trusted=("burglar.Burglar",), max_rows=100).report
        assert report.is_ready, report.refusal
        assert report.sandbox.is_whole, report.sandbox
        for when in (burglar.REMEMBERED, burglar.ASKED):
            rows = np.array([[when, float(number)] for number in range(len(burglar.DEEDS))])
            answers = np.asarray(ask(host, "predict", Batch(len(rows), matrix=rows))).tolist()
            tried = zip(burglar.DEEDS, answers, strict=True)
            assert [deed for deed, answer in tried if answer != burglar.TRIES_IN_VAIN] == []
        variables = psutil.Process(host.pid).environ()
        assert not {name for name in variables if name.startswith("SERVING_SECURITY")}
        host.close()
    finally:
        zygote.stop()
    assert picture(python.parent.parent) == before
    assert (place / "secret").read_text() == "hush"
    with pytest.raises(BlockingIOError):
        door.accept()


def picture(directory: Path) -> dict[Path, tuple[int, int]]:
    """Return every file below a directory, with what changes when it is written."""
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in directory.rglob("*")}
