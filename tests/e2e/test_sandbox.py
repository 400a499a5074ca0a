"""A model whose own code is trusted to run, and runs amok: the sandbox of its host, in a real server under traffic."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import burglar
import pytest
from sklearn.linear_model import LinearRegression

from serving.sandbox import landlock
from tests.e2e.harness import PECULIAR, TOKEN, Server, constant, serving, until
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
LOADING = ("read", "write", "change modes", "fork", "run a program", "kill its parent", "kill all", "connect")


def lacks_landlock() -> str | None:
    try:
        landlock.read_abi()
    except OSError as error:
        return f"this kernel has no Landlock: {error.strerror}"
    return None


@pytest.fixture(scope="module")
def door() -> Iterator[socket.socket]:
    """Listen, to see who comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, door: socket.socket) -> Iterator[Server]:
    """A server with something to steal. It requires every layer, where there is every layer."""
    directory = tmp_path_factory.mktemp("house")
    (directory / "settings.toml").write_text("")
    treasure = place_of(directory, door)
    treasure.mkdir()
    (treasure / "secret").write_text(TOKEN)
    settings = {
        "SERVING_SECURITY__PICKLE_TRUSTED": ",".join((*PECULIAR, "burglar.Burglar")),
        "SERVING_CANDIDATE__TIMEOUT_SECONDS": "30",
        "SERVING_SECURITY__REQUIRE_SANDBOX": str(lacks_landlock() is None).lower(),
    }
    with serving(directory, imports_anew=True, **settings) as server:
        server.drop("good", 1, constant(5))
        server.wait_active("good", 1)
        yield server


def place_of(directory: Path, door: socket.socket) -> Path:
    """Return where the treasure lies; the name says at which port somebody listens."""
    return directory / f"treasure-{door.getsockname()[1]}"


def picture(*places: Path) -> dict[Path, object]:
    """Return all there is to see of what lies in these places, but when it was read last."""
    paths = [path for place in places for path in (place, *place.rglob("*"))]
    return {path: (*_inode(path), path.read_bytes() if path.is_file() else None) for path in paths}


def _inode(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    attributes = [(name, os.getxattr(path, name)) for name in os.listxattr(path)]
    return (found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_mtime_ns, found.st_ctime_ns, attributes)


def assert_nobody_came(door: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        door.accept()


@pytest.mark.parametrize("deed", LOADING)
def test_what_it_tries_while_it_is_loaded_fails_and_it_is_refused(
    house: Server, door: socket.socket, deed: str
) -> None:
    if deed in burglar.BY_LANDLOCK and (reason := lacks_landlock()):
        pytest.skip(reason)
    place = place_of(house.directory, door)
    before = picture(place)
    name = f"loading-{list(burglar.DEEDS).index(deed)}"
    with Traffic(house.url, "good", rate=100, connections=2) as traffic:
        house.drop(name, 1, burglar.Burglar(deed, str(place)).fit([[0.0, 0.0]]))
        refused = house.wait_state(name, 1, "REJECTED")
    last = refused["gates"][-1]
    assert last["gate"] == "load"
    assert "PermissionError" in last["evidence"]
    assert {reply.status for reply in traffic.replies} == {200}
    assert picture(place) == before
    assert_nobody_came(door)


def test_whatever_it_tries_loading_or_serving_it_changes_nothing_outside_of_its_scratch_directory(
    house: Server, door: socket.socket
) -> None:
    """Every deed there is, by a model whose own code is trusted; beside it, all that the server keeps."""
    if reason := lacks_landlock():
        pytest.skip(reason)
    place = place_of(house.directory, door)
    before = {host.pid for host in house.hosts()}
    house.drop("bold", 1, burglar.Burglar(place=str(place), is_bold=True).fit([[0.0, 0.0]]))
    house.wait_active("bold", 1)
    names = house.state / "active.json"  # written behind the swap, beside it as ".new" first
    until(lambda: "bold" in json.loads(names.read_bytes())["active"], "the new name in the file of active versions")
    kept = [path for path in house.state.iterdir() if path.name != "scratch" and not path.name.startswith("state.")]
    assert kept
    until(lambda: len({host.pid for host in house.hosts()} - before) == 1, "the end of what checked graphs beside it")
    seen = picture(place, *kept)
    [host] = [host for host in house.hosts() if host.pid not in before]
    for when in (burglar.REMEMBERED, burglar.ASKED):
        rows = [[when, float(number)] for number in range(len(burglar.DEEDS))]
        answers = house.predict("bold", rows).json()["predictions"]
        tried = zip(burglar.DEEDS, answers, strict=True)
        assert [deed for deed, answer in tried if answer != burglar.TRIES_IN_VAIN] == []
    assert host.is_running()
    assert picture(place, *kept) == seen
    assert_nobody_came(door)


def test_the_layers_are_told_wherever_somebody_looks(house: Server) -> None:
    if reason := lacks_landlock():
        pytest.skip(reason)
    version = house.client.get(f"{house.url}/models/good/versions/1").json()
    assert {"landlock", "seccomp", "no_new_privs", "limits", "tasks"} <= set(version["sandbox"]["active"])
    assert house.client.get(f"{house.url}/models").json()["sandbox"]["active"] == version["sandbox"]["active"]
    [line] = [line for line in house.log() if line.get("event") == "sandbox"]
    assert line["active"] == version["sandbox"]["active"]


def test_a_hosts_scratch_directory_goes_with_it(house: Server) -> None:
    scratch = house.state / "scratch"
    house.drop("leaver", 1, constant(1))
    house.wait_active("leaver", 1)
    until(lambda: len(list(scratch.iterdir())) == len(house.hosts()), "the end of the directories of those that left")
    before = set(scratch.iterdir())
    house.kill_hosts()
    assert before  # perhaps also that of a process which was about to leave
    until(lambda: house.predict("leaver").status_code == 200, "respawn")
    until(lambda: not before & set(scratch.iterdir()), "the end of the directories of those that were killed")


def test_where_every_layer_is_required_versions_are_served_or_refused_for_its_lack(
    house: Server, tmp_path: Path
) -> None:
    if lacks_landlock():
        with serving(tmp_path, SERVING_SECURITY__REQUIRE_SANDBOX="true") as server:
            server.drop("m", 1, constant(1))
            refused = server.wait_state("m", 1, "REJECTED")
            assert "security.require_sandbox" in refused["gates"][-1]["evidence"]
    else:
        assert house.environment["SERVING_SECURITY__REQUIRE_SANDBOX"] == "true"
        house.drop("m", 1, constant(1))
        house.drop("graph", 1, LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]))
        house.wait_active("m", 1)
        house.wait_active("graph", 1)
        assert house.version("graph", 1)["engine"] == "onnx"  # what compiles it loads it a second time
