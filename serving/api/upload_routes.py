"""A version over HTTP: a body becomes a version in the store if no gate refuses it. Off unless `store.uploads`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
import structlog
from fastapi import APIRouter, Query, Request, Response
from pydantic import JsonValue
from starlette.requests import ClientDisconnect

from serving.api.admin import check_actor
from serving.api.bodies import DROPPED_BYTES, MAX_DIGITS, BodyTooSlow, Headers, Receive, refuse_encoding
from serving.api.json_bodies.strict_json import refuse_depth
from serving.api.models import ModelName, VersionName
from serving.api.openapi import BINARY, problems_of
from serving.api.services import services_of
from serving.domain.errors import InvalidInput, NotJson, ServingError, UnsupportedMedia, UploadsOff
from serving.domain.upload import NEXT, UploadRequest, UploadStatus

TAR = b"application/x-tar"
MIN_BYTES = 256 << 10  # of a body, in each `server.body_seconds`
MAX_METRICS_CHARACTERS = 8 << 10
OFF = "versions are not uploaded to this server: it was started without store.uploads = true"

_BODY = {"required": True, "content": {"application/octet-stream": BINARY, "application/x-tar": BINARY}}

router = APIRouter(tags=["operate"])
log = structlog.get_logger("serving.admin")


@router.put(
    "/models/{model}/versions/{version}",
    summary="Publish a version",
    status_code=201,
    responses=problems_of(400, 404, 409, 413, 415, 422, 507),
    openapi_extra={"requestBody": _BODY},
)
async def publish(
    model: ModelName,
    version: VersionName,
    request: Request,
    response: Response,
    file: Annotated[
        str | None, Query(max_length=255, description="name of the artefact in the body", examples=["model.joblib"])
    ] = None,
    breaking: Annotated[
        bool, Query(description="do not require that it fits the clients of the version before")
    ] = False,
    metrics: Annotated[
        str | None, Query(max_length=MAX_METRICS_CHARACTERS, description="metrics for the manifest, a JSON object")
    ] = None,
) -> UploadStatus:
    """Let a version pass the gates, and publish it if none refuses; `next` stands for the next number.

    The body is the artefact, with its name in the query, or a tar archive (`application/x-tar`) of a version's files:
    the artefact, `golden.json`, `manifest.json`, `manifest.sig`. A version that exists is never changed.
    """
    headers = request.scope["serving.headers"]
    services = services_of(request.app)
    body = _Body(request.receive, headers, services.settings.server.body_seconds)
    fields: dict[str, Any] = {"call": "upload", "model": model, "version": version}
    try:
        fields["actor"] = actor = check_actor(request)
        if not services.settings.store.uploads:
            raise UploadsOff(OFF)
        refuse_encoding(headers)
        asked = UploadRequest(
            model=model,
            version=None if version == NEXT else version,
            file=_read_file_name(headers, file),
            size=body.size,
            is_breaking=breaking,
            metrics=_read_metrics(metrics, services.settings.server.max_json_depth),
        )
        status = await services.uploads.receive(asked, actor, body.read_chunks())
    except Exception as error:
        if body.is_endless:
            error.closes_connection = True  # type: ignore[attr-defined]
        if "actor" in fields:
            reason = str(error) if isinstance(error, ServingError) else type(error).__name__
            log.warning("admin", **fields, outcome="refused", reason=reason)
        raise
    log.info("admin", **{**fields, "version": status.version}, outcome="done", file=status.file, bytes=status.bytes)
    response.headers["Location"] = f"{request.scope.get('root_path', '')}/models/{model}/versions/{status.version}"
    return status


class _Body:
    """The body of one upload. Its client may take as long as it sends `MIN_BYTES` in each `seconds`."""

    def __init__(self, receive: Receive, headers: Headers, seconds: float) -> None:
        self._receive = receive
        self._seconds = seconds
        self._has_ended = False
        length = headers.get(b"content-length", b"")
        self.size = int(length) if length.isdigit() and len(length) <= MAX_DIGITS else None
        self._is_long = self.size is None or self.size > DROPPED_BYTES

    @property
    def is_endless(self) -> bool:
        """Whether what has not been read of it is too much to read and drop."""
        return self._is_long and not self._has_ended

    async def read_chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises BodyTooSlow, and ClientDisconnect when it is cut short."""
        loop = asyncio.get_running_loop()
        ends_at, arrived = loop.time() + self._seconds, 0
        while not self._has_ended:
            try:
                async with asyncio.timeout_at(ends_at):
                    message = await self._receive()
            except TimeoutError:
                slow = f"less than {MIN_BYTES >> 10} KiB of the body arrived within {self._seconds:g} seconds"
                raise BodyTooSlow(slow) from None
            if message["type"] != "http.request":
                raise ClientDisconnect
            self._has_ended = not message.get("more_body", False)
            chunk = message.get("body", b"")
            arrived += len(chunk)
            began = loop.time()
            yield chunk
            ends_at += loop.time() - began  # a disk that is slow is not the client's fault
            if arrived >= MIN_BYTES:
                ends_at, arrived = loop.time() + self._seconds, 0


def _read_file_name(headers: Headers, file: str | None) -> str | None:
    """Return the name of the artefact, None for an archive."""
    media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media == TAR:
        if file is not None:
            raise InvalidInput("a tar archive names its files itself: leave 'file' out of the query")
        return None
    if media.startswith(b"multipart/"):
        raise UnsupportedMedia("forms are not read here; send the file itself (curl: -T FILE), or application/x-tar")
    if not file:
        raise InvalidInput("name the artefact in the query, as in '?file=model.joblib', or send application/x-tar")
    return file


def _read_metrics(text: str | None, max_depth: int) -> dict[str, JsonValue]:
    if text is None:
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"metrics in the query are not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInput("metrics in the query should be a JSON object")
    try:
        refuse_depth(text.encode(), max_depth)
    except NotJson:
        raise InvalidInput(f"metrics in the query are nested deeper than {max_depth} levels") from None
    return found
