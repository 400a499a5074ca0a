"""A version that is uploaded is checked before anybody sees it, and then published like any other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.harness import Server, constant, linear, serving, until, write_version
from tests.e2e.uploading import UPLOADS, dump, leftovers, manifest_of, upload


@pytest.fixture(scope="module", params=["1", "2"], ids=["one worker", "two workers"])
def taking(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("taking")
    write_version(directory / "store" / "m", 1, constant(1))
    with serving(directory, wait_ready=True, SERVING_SERVER__WORKERS=request.param, **UPLOADS) as server:
        yield server


@pytest.fixture(autouse=True)
def tidy(taking: Server) -> Iterator[None]:
    """Whatever became of an upload, nothing of it is left beside the versions."""
    yield
    until(lambda: not leftovers(taking.store), "no leftovers")


def test_a_file_becomes_the_next_version_and_serves(taking: Server) -> None:
    answer = upload(taking, "m", "next", dump(constant(2)))
    assert answer.status_code == 201, answer.text
    published = answer.json()
    assert (published["version"], published["state"]) == ("2", "published")
    assert answer.headers["location"] == "/models/m/versions/2"
    assert {gate["verdict"] for gate in published["gates"]} <= {"passed", "warned", "skipped"}
    taking.wait_active("m", 2)
    assert taking.predict("m").json()["predictions"] == [2.0]
    manifest = manifest_of(taking, "m", 2)
    assert manifest["signature"]["features"]
    assert manifest["libraries"]["scikit-learn"]
    assert taking.version("m", 2)["digest"] == published["digest"]


def test_a_new_model_is_not_evaluated_twice(taking: Server) -> None:
    answer = upload(taking, "fresh", "1", dump(linear()))
    assert answer.status_code == 201, answer.text
    taking.wait_active("fresh", 1)
    assert taking.predict("fresh", [[1.0, 2.0]]).json()["predictions"] == pytest.approx([5.0])
    recalled = [line for line in taking.log() if line["event"] == "evaluation_recalled" and line["model"] == "fresh"]
    assert len(recalled) == 1
