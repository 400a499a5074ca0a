"""Request bodies as bytes: the right kind, whole, within a limit and within a time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect

from serving.api.deadlines import Deadlines
from serving.api.inflight import Inflight, Share, TooManyBytes
from serving.domain.errors import BodyTooLarge, NotJson, RequestRefused, UnsupportedMedia

# Many clients read no answer before they have sent everything. For them, this many bytes are read and dropped.
DROPPED_BYTES = 256 << 20
MAX_DIGITS = 18
_INLINE_BYTES = 4 << 10
_PLAIN = (b"", b"identity")
_WINDOWS = {b"gzip": zlib.MAX_WBITS | 16, b"x-gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}

CURL_DEFAULT = "application/x-www-form-urlencoded"
CURL_HINT = "curl: -H 'Content-Type: application/json'"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Headers = Mapping[bytes, bytes]


class BodyTooSlow(RequestRefused):
    """The body did not arrive in time."""

    closes_connection = True


class BodyNotRead(BodyTooLarge):
    """The body has too many bytes, and they were not read. `closes_connection`: they might never end."""

    def __init__(self, message: str, *, closes_connection: bool) -> None:
        super().__init__(message)
        self.closes_connection = closes_connection


def refuse_media(headers: Headers) -> None:
    """Raise UnsupportedMedia unless the body is plain JSON: ``application/json``, ``application/*+json`` or unnamed."""
    content_type = headers.get(b"content-type")
    if content_type is not None and content_type != b"application/json" and not _is_json(content_type):
        shown = content_type.decode("latin-1")[:80]
        hint = f" ({CURL_HINT})" if shown == CURL_DEFAULT else ""
        raise UnsupportedMedia(f"content type {shown!r} is not read here; send application/json in UTF-8{hint}")


def refuse_encoding(headers: Headers, *, takes_compressed: bool = False) -> None:
    """Raise UnsupportedMedia for a content encoding, except gzip and deflate if these are allowed."""
    encoding = _encoding(headers)
    if encoding in _PLAIN or (takes_compressed and encoding in _WINDOWS):
        return
    hint = "send gzip, deflate or the body as it is" if takes_compressed else "send the body as it is"
    raise UnsupportedMedia(f"content encoding {encoding.decode('latin-1')[:80]!r} is not read here; {hint}")


async def decoded(raw: bytes, headers: Headers, max_bytes: int) -> bytes:
    """Return a body without its content encoding; large ones are decoded in a thread.

    Raises BodyTooLarge for more than `max_bytes`, NotJson for damaged bytes.
    """
    encoding = _encoding(headers)
    if encoding in _PLAIN:
        return raw
    windows = _WINDOWS[encoding]
    if len(raw) <= _INLINE_BYTES:
        return _inflated(raw, windows, max_bytes)
    return await asyncio.to_thread(_inflated, raw, windows, max_bytes)


def _encoding(headers: Headers) -> bytes:
    return headers.get(b"content-encoding", b"").strip().lower()


def _inflated(raw: bytes, windows: int, max_bytes: int) -> bytes:
    """Decompress one whole stream with nothing after it (RFC 1950, 1951 and 1952)."""
    stream = zlib.decompressobj(windows)
    try:
        body = stream.decompress(raw, max_bytes + 1)
    except zlib.error as error:
        raise NotJson(f"the body is not what its content encoding says: {error}") from None
    if len(body) > max_bytes:
        raise BodyTooLarge(f"the body is larger than {max_bytes} bytes when it is decompressed")
    if not stream.eof or stream.unused_data:
        raise NotJson("the compressed body is cut short, or something follows it")
    return body


class _Reading:
    """A task that reads a body, and is cancelled if that takes too long."""

    __slots__ = ("_task", "is_overdue")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.is_overdue = False

    def on_overdue(self) -> None:
        """End it (called by `Deadlines`)."""
        self.is_overdue = True
        self._task.cancel()


class BodyReader:
    """Reads bodies of at most `max_bytes` that arrive within `seconds`, to the second. Event loop thread only.

    One timer serves all bodies under way: a timer for each request would cost 4 us, a fifth of the whole request.
    """

    def __init__(self, max_bytes: int, advice: str = "", *, seconds: float) -> None:
        self._max_bytes = max_bytes
        self._advice = advice
        self._seconds = seconds
        self._deadlines: Deadlines | None = None

    async def read(self, receive: Receive, headers: Headers, share: Share | None = None) -> bytes:
        """Return the whole body, its bytes counted in `share`, if there is one.

        Raises BodyTooLarge, TooManyBytes, BodyTooSlow, or ClientDisconnect when the client has gone. A declared length
        beyond the limit of one body, or beyond the room that is left for all, is refused before anything is read.
        """
        share = share if share is not None else Inflight(0).share()
        length = headers.get(b"content-length")
        if length is not None and length.isdigit():
            if len(length) > MAX_DIGITS or int(length) > self._max_bytes:
                raise self._too_large(length)
            share.expect(int(length))
        deadlines, task = self._deadlines_here(), asyncio.current_task()
        assert task is not None
        reading = _Reading(task)
        deadlines.begin(reading)
        try:
            message = await receive()
            if message.get("more_body", False) or message["type"] != "http.request":
                return await self._rest(receive, message, share, is_declared=length is not None)
        except asyncio.CancelledError:
            if not reading.is_overdue or task.uncancel():
                raise
            raise BodyTooSlow(f"the body did not arrive within {self._seconds:g} seconds") from None
        finally:
            deadlines.end(reading)
        body: bytes = message.get("body", b"")
        if len(body) > self._max_bytes:
            raise self._too_large(b"0")
        share.take(len(body))
        return body

    async def _rest(self, receive: Receive, message: Message, share: Share, *, is_declared: bool) -> bytes:
        parts = []
        size = 0
        while True:
            if message["type"] != "http.request":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_bytes:
                raise self._too_large(b"")
            try:
                share.take(len(part))
            except TooManyBytes as error:
                error.closes_connection = not is_declared
                raise
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await receive()

    def _too_large(self, declared: bytes) -> BodyNotRead:
        is_bounded = declared.isdigit() and len(declared) <= MAX_DIGITS and int(declared) <= DROPPED_BYTES
        message = f"the body is larger than {self._max_bytes} bytes" + self._advice
        return BodyNotRead(message, closes_connection=not is_bounded)

    def _deadlines_here(self) -> Deadlines:
        """Return the deadlines of the running loop."""
        loop = asyncio.get_running_loop()
        if self._deadlines is None or self._deadlines.loop is not loop:
            self._deadlines = Deadlines(loop, self._seconds)
        return self._deadlines


def _is_json(content_type: bytes) -> bool:
    kind, *parameters = content_type.decode("latin-1").lower().split(";")
    media = kind.strip()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        return False
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
            return False
    return True
