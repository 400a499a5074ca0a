"""The audit hook in other Pythons than the server's: their events differ, and what they forbid is the same."""

from __future__ import annotations

import json
import subprocess

import pytest

from serving.domain.last_words import ENDED_ITSELF
from tests.environments import ENTERED, require_python
from tests.unit.sandbox.test_audit import DEEDS, FORK, HARMLESS, WATCH

Endings = dict[str, tuple[int, str]]

TRY_PANDAS = """
try:
    import pandas
except ImportError:
    print("none")
try:
    from pandas.api.types import is_sparse
except ImportError:
    print("none")
"""
EXCEPTIONS = "sandbox.WatchExceptions(frozenset({{'pandas'}}), frozenset({{'libm.so.6'}}))"
WATCH_WITHOUT = WATCH.replace("flush())", f"flush(), exceptions={EXCEPTIONS})")


@pytest.fixture(scope="module", params=["3.9", "3.10", "3.11", "3.12", "3.13"])
def endings(request: pytest.FixtureRequest) -> Endings:
    """How each watched process ended after its act, and what it wrote."""
    scripts = {name: WATCH.format(before=before, deed=deed) for name, (before, deed, _) in DEEDS.items()}
    for name, deed in HARMLESS.items():
        scripts[name] = WATCH.format(before="import json, math, threading", deed=deed)
    scripts["try pandas"] = WATCH.format(before="", deed=TRY_PANDAS)
    scripts["try absent pandas"] = WATCH_WITHOUT.format(before="", deed=TRY_PANDAS)
    scripts["open a library"] = WATCH_WITHOUT.format(before="import ctypes", deed="ctypes.CDLL('libm.so.6')")
    scripts["open another"] = WATCH_WITHOUT.format(before="import ctypes", deed="ctypes.CDLL('libc.so.6')")
    scripts["call it"] = WATCH_WITHOUT.format(before="import ctypes", deed="ctypes.CDLL('libm.so.6').system")
    scripts["try another"] = WATCH_WITHOUT.format(before="", deed="import pandas_more")
    command = [require_python(request.param), "-I", "-S", "-B", "-c", ENTERED + FORK]
    done = subprocess.run(command, check=True, capture_output=True, text=True, input=json.dumps(scripts))
    return {name: tuple(ending) for name, ending in json.loads(done.stdout).items()}


def test_every_forbidden_act_ends_the_process(endings: Endings) -> None:
    said = {name: (status, words[: len(DEEDS[name][2])]) for name, (status, words) in endings.items() if name in DEEDS}
    assert said == {name: (ENDED_ITSELF, words) for name, (_, _, words) in DEEDS.items()}


def test_every_ordinary_act_is_allowed(endings: Endings) -> None:
    assert {endings[name] for name in HARMLESS} == {(0, "nothing happened")}


def test_only_a_package_that_is_said_to_be_absent_may_be_tried(endings: Endings) -> None:
    """scikit-learn tries to import pandas when an imputer answers."""
    assert endings["try pandas"] == (ENDED_ITSELF, "import 'pandas'")
    assert endings["try absent pandas"] == (0, "none\nnone\nnothing happened")
    assert endings["try another"] == (ENDED_ITSELF, "import 'pandas_more'")


def test_only_a_library_that_is_said_to_be_loaded_may_be_opened(endings: Endings) -> None:
    """An older threadpoolctl opens OpenBLAS when k-means answers; what may be called of it is the same."""
    assert endings["open a library"] == (0, "nothing happened")
    assert endings["open another"] == (ENDED_ITSELF, "load the library 'libc.so.6'")
    assert endings["call it"] == (ENDED_ITSELF, "call the function 'system' of a library")
