"""The pages under ``/docs``: Swagger UI, from files of this package, so that they work without any other server.

The files are those of npm's swagger-ui-dist 5.35.0 (Apache License 2.0), unchanged but for a comment in the styles;
``index.html`` and ``start.js`` are ours.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from serving.api.paths import PAGES

_REDIRECTED = ("/docs/oauth2-redirect", "/docs/", "/redoc/")
_KINDS = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}


def add_routes(app: FastAPI) -> None:
    """Replace FastAPI's own pages, which load scripts from the internet; ``/redoc`` shows the same page."""
    app.router.routes[:] = [one for one in app.router.routes if getattr(one, "path", None) not in PAGES]
    for path in sorted({*PAGES, *_REDIRECTED}):
        answer = _redirect if path in _REDIRECTED else _page
        app.router.routes.append(Route(path, answer, include_in_schema=False))


async def _page(request: Request) -> Response:
    return _file(request.url.path.rpartition("/")[2])


async def _redirect(request: Request) -> Response:
    return RedirectResponse(request.scope.get("root_path", "") + "/docs")


@cache
def _file(name: str) -> Response:
    name = "index.html" if name in ("docs", "redoc") else name
    content = files("serving.api").joinpath("swagger_ui", name).read_bytes()
    return Response(content, media_type=_KINDS[name.rpartition(".")[2]])
