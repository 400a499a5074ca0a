"""Refuses requests that a browser sends for a page of another site, where that could do harm.

A page can make a browser send a "simple" request to any server, without asking it first: a POST with the content type
of a form, or with none. The page cannot remove the headers that say where the request comes from. Other clients send
neither of these headers.

A request that a cookie of this server opens has to show more: to change or compute something, that the page of this
server sends it; to read, that no page of another origin does. Another port of this host is another origin, although
browsers send cookies to all ports of a host.
"""

from __future__ import annotations

from serving.api.bodies import Headers
from serving.domain.errors import CrossSite

SITE, ORIGIN = b"sec-fetch-site", b"origin"

_SAFE = ("GET", "HEAD", "OPTIONS")
_SAME = b"same-origin"
_OWN = (_SAME, b"none")  # "none": the user asked for it, by the address bar for instance
_ONLY_PAGE = (
    "a session counts here only for the page of this server, whose browser says 'Sec-Fetch-Site: same-origin', or "
    "names this server as 'Origin'; other clients send the token: 'Authorization: Bearer <token>'"
)
_PORTS = {b"http": b":80", b"https": b":443"}


def refuse_cross_site(method: str, headers: Headers) -> None:
    """Raise CrossSite for a request that changes something, or computes, and comes from a page of another site.

    The browser itself sets ``Sec-Fetch-Site``, so that header counts if there is one. Else ``Origin`` must name the
    host that the request is addressed to.
    """
    if method in _SAFE:
        return
    _refuse_others(headers.get(SITE), headers.get(ORIGIN), headers)


def refuse_other_pages(method: str, headers: Headers) -> None:
    """Raise CrossSite for a request that a session would open, unless the page of this server sends it.

    To read, it is enough that no other page sends it: browsers say less of a request that reads, and over plain HTTP to
    another machine they do not send ``Sec-Fetch-Site``.
    """
    site, origin = headers.get(SITE), headers.get(ORIGIN)
    if method in _SAFE:
        _refuse_others(site, origin, headers)
    elif (site.lower() != _SAME) if site is not None else (origin is None or not _is_own(origin, headers)):
        raise CrossSite(_ONLY_PAGE)


def _refuse_others(site: bytes | None, origin: bytes | None, headers: Headers) -> None:
    if site is not None:
        if site.lower() not in _OWN:
            raise _cross_site(site)
    elif origin is not None and not _is_own(origin, headers):
        raise _cross_site(origin)


def _is_own(origin: bytes, headers: Headers) -> bool:
    host = headers.get(b"host", b"")
    scheme, mark, authority = origin.lower().partition(b"://")
    port = _PORTS.get(scheme)
    if not mark or not authority or port is None:
        return False
    return authority.removesuffix(port) == host.lower().removesuffix(port)


def _cross_site(seen: bytes) -> CrossSite:
    text = seen[:100].decode("latin-1")
    return CrossSite(f"a browser sent this for another site ({text!r}): pages may only ask the server they come from")
