"""Which form a request has, and which one its answer will have: ``Content-Type`` and ``Accept`` (RFC 9110, 12.5.1).

None stands for JSON, which needs no format. It is the form if a header is missing or accepts anything.
"""

from __future__ import annotations

from functools import lru_cache

from serving.api.bodies import CURL_DEFAULT, CURL_HINT, Headers, refuse_media
from serving.api.formats import CSV, FORMATS, RowFormat
from serving.domain.errors import NotAcceptable, UnsupportedMedia

TAKEN = f"application/json, {', '.join(FORMATS)}"
MOST_RANGES = 64

_JSON = b"application/json"
_USUAL_ANSWERS = (None, b"*/*", _JSON)
_RANGES: dict[str, RowFormat | None] = {
    "application/json": None,
    "*/*": None,
    "application/*": None,
    "text/*": CSV,
    **FORMATS,
}


def form_of_body(headers: Headers) -> RowFormat | None:
    """Return the format of a request's body; raises UnsupportedMedia, which says what to send or install."""
    content_type = headers.get(b"content-type", _JSON)
    return None if content_type == _JSON else _form_of(content_type)


def form_of_answer(headers: Headers) -> RowFormat | None:
    """Return the format of the answer; raises NotAcceptable if the client accepts none of those that are here."""
    accept = headers.get(b"accept")
    return None if accept in _USUAL_ANSWERS else _wanted(accept or b"")


@lru_cache(maxsize=256)
def _form_of(content_type: bytes) -> RowFormat | None:
    text = content_type.decode("latin-1")
    kind, *parameters = text.lower().split(";")
    form = FORMATS.get(kind.strip())
    if form is None:
        _refuse_unless_json(content_type, text)
        return None
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMedia(f"content type {text[:80]!r} is not read here; send it in UTF-8")
    reason = form.why_not()
    if reason is not None:
        raise UnsupportedMedia(f"content type {text[:80]!r} is not read here: {reason}")
    return form


def _refuse_unless_json(content_type: bytes, text: str) -> None:
    try:
        refuse_media({b"content-type": content_type})
    except UnsupportedMedia:
        hint = f" ({CURL_HINT})" if text == CURL_DEFAULT else ""
        raise UnsupportedMedia(f"content type {text[:80]!r} is not read here; send one of {TAKEN}{hint}") from None


@lru_cache(maxsize=256)
def _wanted(accept: bytes) -> RowFormat | None:
    """Return the form with the highest weight, of equals the one that is named first."""
    text = accept.decode("latin-1").lower()
    best: tuple[float, RowFormat | None] | None = None
    missing = ""
    for one in text.split(",", MOST_RANGES)[:MOST_RANGES]:
        media, *parameters = (part.strip() for part in one.split(";"))
        weight = _weight(parameters)
        if media not in _RANGES or not weight or (best is not None and weight <= best[0]):
            continue
        form = _RANGES[media]
        reason = None if form is None else form.why_not()
        if reason is None:
            best = weight, form
        else:
            missing = f": {reason}"
    if best is None:
        raise NotAcceptable(f"no answer here is of the kind {text[:80]!r}{missing}; accept one of {TAKEN}")
    return best[1]


def _weight(parameters: list[str]) -> float:
    """Return the ``q`` of a media range; 0 if it is not a number between 0 and 1."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0 <= weight <= 1 else 0.0
    return 1.0
