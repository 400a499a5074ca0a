"""The files of the page under ``/ui/``, from this package: they hold nothing that needs a token.

A browser keeps a file and asks each time whether it has changed (``ETag``), so an update of the server shows at once.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.api.paths import PAGE, PAGE_FILES
from serving.api.problems import NOTHING_HERE

INDEX = "index.html"
MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml; charset=utf-8",
    "png": "image/png",
}
_WORTHWHILE = 0.9  # a file that does not become smaller than this share is sent as it is


@dataclass(frozen=True)
class PageFile:
    """One file: its bytes, and what HTTP says of them."""

    content: bytes
    media_type: str

    @cached_property
    def etag(self) -> str:
        """The entity tag, without quotation marks."""
        return sha256(self.content).hexdigest()[:32]

    @cached_property
    def compressed(self) -> bytes | None:
        """The bytes in gzip's format, None if these are hardly fewer. Computed once, which takes some milliseconds."""
        found = gzip.compress(self.content, mtime=0)
        return found if len(found) < len(self.content) * _WORTHWHILE else None


def add_routes(app: FastAPI) -> None:
    """Add ``/ui/`` with every file below it, and ``/ui``, which leads there."""
    app.router.routes.append(Route(PAGE, _redirect, include_in_schema=False))
    app.router.routes.append(Route(PAGE_FILES + "{name:path}", _answer, include_in_schema=False))


@cache
def page_files() -> Mapping[str, PageFile]:
    """Return the files by their paths below ``/ui/``. Blocks when it is called first; any thread."""
    return dict(_read(files("serving.api").joinpath("ui"), ""))


def _read(directory: Traversable, prefix: str) -> Iterator[tuple[str, PageFile]]:
    for entry in directory.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        elif (media_type := MEDIA_TYPES.get(entry.name.rpartition(".")[2])) is not None:
            yield prefix + entry.name, PageFile(entry.read_bytes(), media_type)


async def _redirect(request: Request) -> Response:  # noqa: ARG001  (a route's signature)
    """Lead to the page with a location relative to the request's: a proxy may have a path before ours."""
    return Response(status_code=307, headers={"location": PAGE_FILES[1:]})


async def _answer(request: Request) -> Response:
    file = page_files().get(request.path_params["name"] or INDEX)
    if file is None:
        raise HTTPException(404, NOTHING_HERE)
    compressed = file.compressed if _accepts_gzip(request.headers.get("accept-encoding", "")) else None
    etag = f'"{file.etag}"' if compressed is None else f'"{file.etag}-gzip"'
    headers = {"etag": etag, "vary": "accept-encoding"}
    if _is_known(etag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    if compressed is None:
        return Response(file.content, headers=headers, media_type=file.media_type)
    return Response(compressed, headers={**headers, "content-encoding": "gzip"}, media_type=file.media_type)


def _accepts_gzip(header: str) -> bool:
    """Read ``Accept-Encoding`` (RFC 9110, 12.5.3)."""
    found: dict[str, bool] = {}
    for part in header.lower().split(","):
        coding, _, weight = part.partition(";")
        found[coding.strip()] = weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return found.get("gzip", found.get("*", False))


def _is_known(etag: str, header: str) -> bool:
    """Say whether ``If-None-Match`` names the tag (RFC 9110, 13.1.2)."""
    known = [one.strip().removeprefix("W/") for one in header.split(",")]
    return etag in known or known == ["*"]
