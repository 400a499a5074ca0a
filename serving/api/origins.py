"""Requests that a browser sends for a page of another site: refused where they would do something.

A page may have a browser send a "simple" request anywhere, without asking the server first: a POST with the content
type of a form, or with none. It cannot leave out the headers that say where it comes from. Other clients send neither.
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

    ``Sec-Fetch-Site`` is the browser's own word, so it counts where there is one; else ``Origin`` must name the host
    that the request is addressed to.
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
