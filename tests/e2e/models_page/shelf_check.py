"""Compares what a server does with the files of a row of docs/models.md, and that with what the row says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.harness import Server, until
from tests.e2e.models_page.shelf import Shelf

DECIDED = ("ACTIVE", "REJECTED")


def check_shelf(shelf: Shelf, server: Server) -> None:
    """Compare what the server does with what is expected, and that with what the row says."""
    for model, rows, expected in shelf.answered:
        wait_decided(server, model, "ACTIVE")
        for method, own in expected.items():
            answer = ask(server, model, rows, method)
            assert answer.status_code == 200, answer.text
            assert_alike(answer.json()["predictions"], own)
    said = _list_refusals(shelf, server)
    for text in said:
        assert any(quote in text for quote in shelf.row.quotes), (shelf.row.quotes, text)
    for quote in shelf.row.quotes:
        assert any(quote in text for text in said), (quote, said)
    seen = {"works": shelf.answered and not said, "with": shelf.answered, "instead": said}
    assert seen[shelf.row.verdict], "the row says otherwise"


def _list_refusals(shelf: Shelf, server: Server) -> list[str]:
    """Return what the server says of the files that it does not serve."""
    said = [wait_decided(server, model, "REJECTED")["reason"] for model in shelf.refused]
    return said + [
        until(lambda file=file: find_problem(server, file), f"a problem of {file}") for file in shelf.ignored
    ]


def wait_decided(server: Server, model: str, state: str) -> Any:
    """Wait for the only version of a model to be decided on, in this way, and return it."""

    def decided() -> Any:
        versions = server.model(model).get("versions", [])
        return next((version for version in versions if version["state"] in DECIDED), None)

    found = until(decided, f"a decision on {model}", seconds=60.0)
    assert found["state"] == state, found["reason"]
    return server.version(model, found["version"])


def ask(server: Server, model: str, rows: list[Any], method: str) -> Any:
    """Ask for predictions by one method."""
    return server.client.post(f"{server.url}/models/{model}/predict", json={"instances": rows, "method": method})


def find_problem(server: Server, file: str) -> str | None:
    """Return what the server says of a file that is no version of any model."""
    return next((text for text in server.get("/models")["store"]["problems"] if f"'{file}'" in text), None)


def assert_alike(got: Any, own: Any) -> None:
    """Compare answers: numbers nearly, everything else exactly."""
    if isinstance(own, dict):
        assert got.keys() == own.keys()
        got, own = list(got.values()), list(own.values())
    if isinstance(own, list):
        assert len(got) == len(own)
        for mine, its in zip(got, own, strict=True):
            assert_alike(mine, its)
    elif isinstance(own, float):
        assert got == pytest.approx(own, rel=1e-5, abs=1e-6)
    else:
        assert got == own
