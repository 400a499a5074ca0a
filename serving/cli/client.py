"""The HTTP client of the command line: each call returns an answer, or fails with one line that says why."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import TypeAdapter, ValidationError

from serving.cli.output import one_line
from serving.domain.errors import ServingError
from serving.settings import ServerSettings, SettingsError, TokenScope, load_token, read_token_file

Answer = TypeVar("Answer")

_MAX_ANSWER_BYTES = 64 << 20
_NO_CREDENTIALS = "; no token was sent: set SERVING_SECURITY__{scope}_TOKEN or give --token-file"


class CallFailed(ServingError):
    """The server could not be reached, did not answer as it should, or refused; `status` is that of a refusal."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: one would carry the admin token to an address that the user has not named."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class ServerClient:
    """Where a server is and how to speak to it. Every call blocks, `timeout_seconds` at most between two bytes."""

    url: str
    token: str | None
    timeout_seconds: float
    scope: TokenScope = TokenScope.ADMIN

    def get(self, *parts: str, query: str = "") -> Any:
        """GET the path made of `parts` and return the decoded JSON; raises CallFailed."""
        return self._send_request("GET", parts, None, query)

    def post(self, *parts: str, body: dict[str, Any] | None = None, request_id: str | None = None) -> Any:
        """POST `body` as JSON and return the decoded answer; raises CallFailed."""
        return self._send_request("POST", parts, body or {}, request_id=request_id)

    def put(self, *parts: str, body: dict[str, Any]) -> Any:
        """PUT `body` as JSON and return the decoded answer; raises CallFailed."""
        return self._send_request("PUT", parts, body)

    def delete(self, *parts: str) -> Any:
        """DELETE the path and return the decoded answer; raises CallFailed."""
        return self._send_request("DELETE", parts, None)

    def parse_answer(self, kind: type[Answer], answer: Any) -> Answer:
        """Return an answer as the type it should have; raises CallFailed."""
        try:
            return TypeAdapter(kind).validate_python(answer)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "answer"
            reason = f"{where}: {first['msg']}"
            raise CallFailed(one_line(f"{self.url} answered something else than expected ({reason})")) from None

    def _send_request(
        self,
        method: str,
        parts: tuple[str, ...],
        body: dict[str, Any] | None,
        query: str = "",
        request_id: str | None = None,
    ) -> Any:
        path = "/".join(quote(part, safe="") for part in parts)
        url = f"{self.url}/{path}{query}"
        data = None if body is None else json.dumps(body).encode()
        headers = self._build_headers() | ({} if request_id is None else {"X-Request-Id": request_id})
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310  (see choose_server_url)
        try:
            with _build_opener(self.url).open(request, timeout=self.timeout_seconds) as answer:
                return json.loads(answer.read(_MAX_ANSWER_BYTES) or b"null")
        except urllib.error.HTTPError as error:
            raise CallFailed(self._explain_refusal(error), error.code) from None
        except ValueError:
            raise CallFailed(f"{url} did not answer in JSON; is it a serving server?") from None
        except (OSError, http.client.HTTPException) as error:
            raise CallFailed(one_line(self.explain_no_answer(error))) from None

    def _build_headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "serving-cli"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers

    def explain_no_answer(self, error: Exception) -> str:
        """Return why there is no answer."""
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            return f"{self.url} did not answer within {self.timeout_seconds:g} s"
        why = getattr(reason, "strerror", None) or reason
        return f"no server answers at {self.url} ({why}); start one with 'serving serve' or name another with --url"

    def _explain_refusal(self, error: urllib.error.HTTPError) -> str:
        with error:
            raw = error.read(_MAX_ANSWER_BYTES)
        try:
            document = json.loads(raw)
            detail = document["detail"] if "detail" in document else document["error"]
        except (ValueError, KeyError, TypeError):
            return one_line(f"{error.url} answered {error.code} {error.reason}; is it a serving server?")
        return one_line(self.add_hint(detail, error.code))

    def add_hint(self, detail: str, status: int | None) -> str:
        """Return why a call was refused, and what to do where no token was sent."""
        lacks_token = status in (401, 403) and self.token is None
        return f"{detail}{_NO_CREDENTIALS.format(scope=self.scope.upper()) if lacks_token else ''}"


def choose_server_url(url: str | None, settings: ServerSettings, *, is_for_operators: bool = False) -> str:
    """Return `url`, or the base URL of a server with these settings. Raises SettingsError.

    `is_for_operators` chooses the admin port when there is one.
    """
    if url is None:
        host, port, name = settings.host, settings.port, "port"
        if is_for_operators and settings.admin_port is not None:
            host, port, name = settings.admin_host, settings.admin_port, "admin_port"
        if port == 0:
            raise SettingsError(f"server.{name} is 0, which is a free port chosen at the start: name it with --url")
        return f"http://{_make_reachable(host)}:{port}"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or any(character.isspace() for character in url):
        raise SettingsError(f"--url: {url!r} should be an http:// or https:// address, such as http://127.0.0.1:8000")
    return url.rstrip("/")


def choose_token(scope: TokenScope, file: Path | None) -> str | None:
    """Return the token to send: from the file of the command line, else from the settings. Raises SettingsError."""
    return load_token(scope) if file is None else read_token_file(file, scope)[0]


def _make_reachable(host: str) -> str:
    """Return the address to connect to for an address that a server listens on."""
    try:
        address = ip_address(host)
    except ValueError:
        return host or "127.0.0.1"
    if address.is_unspecified:
        return "127.0.0.1"
    return f"[{host}]" if address.version == 6 else host


def _build_opener(url: str) -> urllib.request.OpenerDirector:
    """Return what opens URLs. A proxy from the environment serves other machines only, never this one."""
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)
