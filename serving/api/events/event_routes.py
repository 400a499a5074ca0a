"""``GET /events`` and ``GET /history``: what changes, and what has happened, of all models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from serving.api.events.event_stream import HEADERS, MEDIA_TYPE, EventStream
from serving.api.models import MAX_PAGE, MOST_ID
from serving.api.openapi import REF, problems_of
from serving.api.schemas import FullHistory
from serving.api.services import services_of
from serving.domain.event_page import HistoryQuery
from serving.domain.state import State

JSON = "application/json"
_TEXT = {"type": "string"}
_EVENT = {  # each of them: https://spec.openapis.org/oas/v3.2.0#server-sent-event-streams
    "type": "object",
    "required": ["event", "data"],
    "properties": {"event": _TEXT, "id": _TEXT, "data": {**_TEXT, "contentMediaType": JSON}},
}
_STREAM: dict[str, Any] = {
    "description": "Events as they come; or, with `Accept: application/json`, those there are.",
    "content": {
        MEDIA_TYPE: {"schema": _EVENT},
        JSON: {"schema": {"$ref": REF.format(model="EventList")}},
    },
}

router = APIRouter(tags=["models"])


@router.get(
    "/events",
    summary="Everything that changes, as a stream",
    response_class=Response,
    responses={200: _STREAM, **problems_of(503)},
)
async def follow_events(
    request: Request,
    since: Annotated[str | None, Query(description="the id of the last event that was seen")] = None,
    last_event_id: Annotated[str | None, Header(description="the same, as browsers send it")] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Send the whole state, and then what changes, as server-sent events. A client that comes back with the id of the
    last event it has seen misses nothing of the history. HTTP/1.0 has no streams: the answer ends, and clients come
    again.
    """
    services = services_of(request.app)
    seen = last_event_id or since or None
    if JSON in accept and MEDIA_TYPE not in accept:
        return Response(await services.events.poll(seen), media_type=JSON)
    if request.scope["http_version"] == "1.0":
        return Response(await services.events.poll_text(seen), headers=HEADERS, media_type=MEDIA_TYPE)
    return EventStream(services.events, seen, services.settings.server.idle_seconds)


@router.get("/history", summary="What happened to all models", responses=problems_of(422, 503))
async def list_history(
    request: Request,
    model: Annotated[str | None, Query(description="only of this model")] = None,
    version: Annotated[str | None, Query(description="only of versions with this name")] = None,
    event: Annotated[str | None, Query(description="only with this event, such as `transition`")] = None,
    actor: Annotated[str | None, Query(description="only by this actor, such as `system`")] = None,
    state: Annotated[State | None, Query(description="only those that led to this state")] = None,
    since: Annotated[datetime | None, Query(description="only from this time on")] = None,
    until: Annotated[datetime | None, Query(description="only before this time")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="most entries in the answer")] = 100,
    before: Annotated[int | None, Query(ge=1, le=MOST_ID, description="only entries with a smaller id")] = None,
) -> FullHistory:
    """Return transitions and operator calls of all models, newest first, also of models that are gone."""
    query = HistoryQuery(model, version, event, actor, state, since, until, limit, before)
    entries = await services_of(request.app).operator.history(query)
    return FullHistory(history=entries, before=entries[-1].id if len(entries) == limit else None)
