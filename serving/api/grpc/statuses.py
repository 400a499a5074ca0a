"""The one place where errors become gRPC: a status code, a line that says what to do, and trailing metadata.

`serving.api.problems` decides the kind of an error; this module only maps it to the codes that inference servers use:
https://grpc.io/docs/guides/status-codes/
"""

from __future__ import annotations

from grpc import StatusCode  # type: ignore[import-untyped]

from serving.api.dialect import Refusal
from serving.api.problems import line_of

Metadata = tuple[tuple[str, str], ...]

CODES: dict[int, StatusCode] = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    409: StatusCode.FAILED_PRECONDITION,
    413: StatusCode.RESOURCE_EXHAUSTED,
    415: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


def code_of(refusal: Refusal) -> StatusCode:
    """Return the code; INTERNAL if the error is the server's own fault."""
    return CODES.get(refusal.status, StatusCode.INTERNAL)


def details_of(refusal: Refusal) -> str:
    """Return one line of bounded length, in valid UTF-8."""
    return line_of(refusal.detail)


def metadata_of(refusal: Refusal) -> Metadata:
    """Return the trailing metadata: the challenge for a token, and when clients may retry by themselves.

    For the latter see https://github.com/grpc/proposal/blob/master/A6-client-retries.md, "Pushback".
    """
    found = []
    challenge = refusal.headers.get("WWW-Authenticate")
    if challenge is not None:
        found.append(("www-authenticate", challenge))
    seconds = refusal.headers.get("Retry-After")
    if seconds is not None:
        found += [("retry-after", seconds), ("grpc-retry-pushback-ms", str(int(seconds) * 1000))]
    return tuple(found)
