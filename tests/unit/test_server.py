"""The process around the application: what it listens on, and what it forgets."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
from pathlib import Path
from typing import Any

import pytest
import typer
import uvicorn

from serving.api.edge import PredictionRouter
from serving.cli.serve import serve
from serving.server import CannotListen, DrainingServer, describe_listener, most_connections
from serving.settings import ServerSettings, Settings
from tests.fakes import make_app, run


def test_an_admin_port_that_is_taken_is_named_and_the_other_port_is_given_back() -> None:
    app = make_app()
    config = uvicorn.Config(PredictionRouter(app), port=0, lifespan="off", log_config=None)
    server = DrainingServer(config, app, app.state.services.settings)

    async def scenario() -> None:
        config.load()
        other = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        server.servers = [other]
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(CannotListen, match=rf"server\.admin_port: cannot listen on 127\.0\.0\.1:{port}: "):
                await server._listen_for_operators(port)
        assert not other.is_serving()

    run(scenario())


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = make_app(server={"port": port})
        config = uvicorn.Config(PredictionRouter(app), port=port, lifespan="off", log_config=None)
        server = DrainingServer(config, app, app.state.services.settings)

        async def scenario() -> None:
            config.load()
            server.lifespan = config.lifespan_class(config)
            with pytest.raises(CannotListen, match=rf"127\.0\.0\.1:{port}: Address already in use; choose .* --port"):
                await server.startup()

        run(scenario())


def test_a_server_has_no_token_in_its_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Settings] = []

    def run_server(settings: Settings) -> int:
        assert "SERVING_SECURITY__ADMIN_TOKEN" not in os.environ
        seen.append(settings)
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVING_SECURITY__ADMIN_TOKEN", "hush")
    monkeypatch.setattr("serving.server.run", run_server)
    with pytest.raises(typer.Exit):
        serve()
    assert seen[0].security.admin_token is not None


@pytest.mark.parametrize(
    ("wanted", "descriptors", "listeners", "expected"),
    [
        (10_000, 1 << 20, 1, 10_000),
        (10_000, 1024, 1, 672),
        (10_000, 1024, 2, 336),
        (500, 1024, 1, 500),
        (0, 1024, 1, 672),
        (10_000, 64, 1, 16),
        (10_000, resource.RLIM_INFINITY, 1, 10_000),
        (0, resource.RLIM_INFINITY, 1, 0),
    ],
)
def test_connections_leave_descriptors_for_everything_else(
    wanted: int, descriptors: int, listeners: int, expected: int
) -> None:
    assert most_connections(wanted, descriptors, listeners) == expected


def test_what_a_server_is_made_of_is_not_searched_for_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    config = uvicorn.Config(PredictionRouter(app), port=0, lifespan="off", log_config=None)
    server = DrainingServer(config, app, app.state.services.settings)
    frozen: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(f"{len(server.servers)} listening"))

    async def scenario() -> None:
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        await server.shutdown()

    run(scenario())
    assert frozen == ["1 listening"]


@pytest.mark.parametrize(
    ("settings", "is_for_operators", "address", "page"),
    [
        ({}, False, ("127.0.0.1", 8000), "http://127.0.0.1:8000/ui/"),
        ({"ui": "read"}, False, ("192.0.2.7", 80), "http://192.0.2.7:80/ui/"),
        ({}, False, ("::1", 8000, 0, 0), "http://[::1]:8000/ui/"),
        ({}, False, ("0.0.0.0", 8000), "http://localhost:8000/ui/"),  # no browser should be sent to such an address
        ({}, False, ("::", 8000, 0, 0), "http://localhost:8000/ui/"),
        ({}, False, ("fe80::1%lo", 8000, 0, 1), "http://[fe80::1%lo]:8000/ui/"),
        ({"ui": "off"}, False, ("127.0.0.1", 8000), None),
        ({"admin_port": 8001}, False, ("127.0.0.1", 8000), None),
        ({"admin_port": 8001}, True, ("127.0.0.1", 8001), "http://127.0.0.1:8001/ui/"),
        ({"admin_port": 8001, "ui": "off"}, True, ("127.0.0.1", 8001), None),
    ],
)
def test_the_log_says_where_the_page_is(
    settings: dict[str, Any], address: tuple[Any, ...], page: str | None, *, is_for_operators: bool
) -> None:
    server = ServerSettings.model_validate(settings)
    described = describe_listener(address, server, is_for_operators=is_for_operators)
    assert described.get("page") == page
    assert described["url"].endswith(f":{address[1]}")
