"""Hostile files dropped into the store of a real server under traffic: refused one by one, and nothing happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.harness import Server, constant, serving, until, write_version
from tests.e2e.hostile import dumped
from tests.e2e.record import Usage, check
from tests.e2e.traffic import Traffic
from tests.hostile.canary import Canary
from tests.hostile.corpus import Hostile, corpus
from tests.hostile.gadgets import gadgets, runs_code
from tests.hostile.skops_files import array, call, in_dict, node, noted, npy, plain

SAMPLE = {
    "calls os:system": ("alone", "plain"),
    "calls builtins:exec": ("in a pipeline", "zlib"),
    "calls socket:create_connection": ("in an array of joblib's", "xz"),
    "calls sklearn.datasets._base:os.system": ("in an array", "bz2"),
    "calls numpy:memmap": ("alone", "gzip"),
    "calls joblib.disk:delete_folder": ("in a pipeline", "lzma"),
    "INST": ("alone", "plain"),
    "a random state of a callable": ("alone", "xz"),
    "a state that is text": ("in a pipeline", "plain"),
    "an old wrapper": ("alone", "plain"),
    "objects that a dtype denies": ("in a pipeline", "plain"),
    "an array of 72 TiB": ("alone", "zlib"),
    "a dtype that grows under its array": ("in an array", "gzip"),
    "the old zip format": ("whole", "plain"),
    "two pickles": ("whole", "plain"),
}
GADGETS = ("stacks by fit", "writes into an array", "tokenizes by list", "a Bunch in the place of an array")
SKOPS = "in a skops file"
AT_ONCE = 25


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    made = Canary(tmp_path / "canary")
    yield made
    made.close()


def by_meaning(canary: Canary, names: Sequence[str]) -> list[Hostile]:
    """Return files of listed classes only, whose attributes would do what the canary dies of, or something like it."""
    chain = Hostile("a chain of gadgets", "gadget", "plain", dumped(runs_code(canary.code)))
    made = gadgets()
    return [chain, *(Hostile(name, "gadget", "plain", dumped(made[name]())) for name in names)]


def in_skops(canary: Canary) -> list[Hostile]:
    """Return skops files that would make a directory, read any memory, end the process, or fill it."""
    table = array("a.npy")
    parts = {
        "calls joblib.memory:Memory": call("joblib.memory.Memory", plain(canary.touched)),
        "a Bunch with an address": in_dict({"__array_interface__": plain(None)}, "sklearn.utils._bunch.Bunch"),
        "a tree of too few sizes": call("sklearn.tree._tree.Tree", plain(4), table, plain(5_000_000)),
        "calls a compiled function": call("sklearn.cluster._kmeans._kmeans_single_lloyd", table, table, table),
        "a bomb": node("BytesNode", "builtins.bytes", file="a.npy"),
    }
    content = {name: npy(np.array([2])) for name in parts} | {"a bomb": bytes(200 << 20)}
    return [Hostile(name, SKOPS, "deflate", noted(part, a_npy=content[name])) for name, part in parts.items()]


def refused(server: Server, cases: Sequence[Hostile], first: int) -> list[Any]:
    """Drop each case as a version of its own, and return what the server says of them once all are refused."""
    for version, case in enumerate(cases, first):
        aside = server.store / "m" / f".{version}.aside"
        aside.mkdir()
        (aside / ("model.skops" if case.hidden == SKOPS else "model.joblib")).write_bytes(case.raw)
        aside.rename(server.store / "m" / str(version))
    return [server.wait_state("m", version, "REJECTED", 60) for version in range(first, first + len(cases))]


def assert_nothing_happens(tmp_path: Path, canary: Canary, cases: list[Hostile]) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1))
    settings = {"SERVING_CANDIDATE__MEMORY_MB": "1024", "SERVING_LOG__LEVEL": "info"}
    with serving(tmp_path, wait_ready=True, **settings) as server:
        before = Usage.of(server)
        with Traffic(server.url, "m", rate=100.0) as traffic:
            for start in range(0, len(cases), AT_ONCE):
                batch = cases[start : start + AT_ONCE]
                for case, version in zip(batch, refused(server, batch, 2 + start), strict=True):
                    last = version["gates"][-1]
                    assert last["gate"] in ("format", "load"), case
                    assert last["verdict"] == "refused", case
                    assert last["evidence"].strip(), case
                    assert "Traceback" not in last["evidence"], case
                    assert str(tmp_path) not in last["evidence"], case
                assert canary.harm() is None
        check(traffic.replies)
        assert {reply.version for reply in traffic.replies} == {"1"}
        until(lambda: Usage.of(server).is_back_at(before), "its memory, threads and processes being what they were")
        assert server.client.get(server.url + "/health/ready").status_code == 200
    print(f"tried {len(cases)}, refused {len(cases)}, side effects 0")


def test_hostile_files_change_nothing(tmp_path: Path, canary: Canary) -> None:
    cases = [case for case in corpus(canary) if SAMPLE.get(case.family) == (case.hidden, case.compression)]
    assert len(cases) == len(SAMPLE)
    assert_nothing_happens(tmp_path, canary, [*cases, *in_skops(canary), *by_meaning(canary, GADGETS)])


@pytest.mark.soak
def test_no_hostile_file_changes_anything(tmp_path: Path, canary: Canary) -> None:
    assert_nothing_happens(tmp_path, canary, [*corpus(canary), *in_skops(canary), *by_meaning(canary, list(gadgets()))])
