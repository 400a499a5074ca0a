"""Refuses requests that a browser sends for a page of another site, if they would change or compute something.

A page can make a browser send a "simple" request to any server, without asking it first: a POST with the content type
of a form, or with none. The page cannot remove the headers that say where the request comes from. Other clients send
neither of these headers.
"""

from __future__ import annotations

from serving.api.bodies import Headers
from serving.domain.errors import CrossSite

SITE, ORIGIN = b"sec-fetch-site", b"origin"

_SAFE = ("GET", "HEAD", "OPTIONS")
_OWN = (b"same-origin", b"none")  # "none": the user asked for it, by the address bar for instance
_PORTS = {b"http": b":80", b"https": b":443"}


def refuse_cross_site(method: str, headers: Headers) -> None:
    """Raise CrossSite for a request that changes something, or computes, and comes from a page of another site.

    The browser itself sets ``Sec-Fetch-Site``, so that header counts if there is one. Else ``Origin`` must name the
    host that the request is addressed to.
    """
    if method in _SAFE:
        return
    site, origin = headers.get(SITE), headers.get(ORIGIN)
    if site is not None:
        if site.lower() not in _OWN:
            raise _cross_site(site)
    elif origin is not None and not _is_own(origin, headers.get(b"host", b"")):
        raise _cross_site(origin)


def _is_own(origin: bytes, host: bytes) -> bool:
    scheme, mark, authority = origin.lower().partition(b"://")
    port = _PORTS.get(scheme)
    if not mark or port is None:
        return False
    return authority.removesuffix(port) == host.lower().removesuffix(port)


def _cross_site(seen: bytes) -> CrossSite:
    text = seen[:100].decode("latin-1")
    return CrossSite(f"a browser sent this for another site ({text!r}): pages may only ask the server they come from")
