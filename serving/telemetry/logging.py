"""Formats all log lines: those of this package through structlog, those of others through :mod:`logging`.

People on a terminal get console lines, machines one JSON object per line. No request body, header or token ever gets
here: the caller names what is logged, key by key.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import Processor

from serving.settings import LogSettings

REQUEST_ID: ContextVar[str | None] = ContextVar("serving_request_id", default=None)
TRACE_ID: ContextVar[str | None] = ContextVar("serving_trace_id", default=None)

FIRST_KEYS = ("timestamp", "level", "logger", "event")

# characters that end a line, control a terminal, change the writing direction or cannot be seen
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_Event = MutableMapping[str, Any]
_WORKER: list[int] = []  # the index of the worker that this process is; empty where it is none


def name_worker(index: int) -> None:
    """Have every line of this process, from now on, say which worker it is."""
    _WORKER.append(index)


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send every log line of the process to `stream` (stderr when not given), once per process and before any other.

    Replaces the handlers of the root logger and silences uvicorn's access log: the service writes its own. Lines below
    `settings.level` cost nothing.
    """
    out = sys.stderr if stream is None else stream
    is_terminal = out.isatty()
    is_console = settings.format == "console" or (settings.format == "auto" and is_terminal)
    level = getattr(logging, settings.level.upper())
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.add_logger_name,
        _add_request_id,
        _add_worker,
    ]
    last = _make_console_processors(has_colors=is_terminal) if is_console else _make_json_processors()
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: _Logger(out, *names),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    _replace_handlers(handler, level)
    threading.excepthook = _log_thread_end


def _log_thread_end(what: threading.ExceptHookArgs) -> None:
    """Log a thread that an exception has ended: Python would print a traceback between the lines."""
    name = what.thread.name if what.thread is not None else "unknown"
    if what.exc_value is not None:
        structlog.get_logger("serving").error("thread_ended", thread=name, exc_info=what.exc_value)


class _Logger(structlog.WriteLogger):
    """Writes lines, and has a name as the loggers of :mod:`logging` do."""

    def __init__(self, file: TextIO, name: str = "serving") -> None:
        super().__init__(file)
        self.name = name


def _make_console_processors(*, has_colors: bool) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=has_colors,
        pad_event_to=0,
        # The prettier one prints local variables, which may be anything.
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [_escape_values, renderer]


def _make_json_processors() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_to_json)]


def _to_json(event: Any, **_: Any) -> str:
    event = {key: event[key] for key in FIRST_KEYS if key in event} | event
    try:
        text = orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
        return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)  # a parser reads the same text
    except orjson.JSONEncodeError:  # a lone surrogate, or an integer beyond 64 bits: still write the line
        return orjson.dumps({key: _escape_text(repr(value)) for key, value in event.items()}).decode()


def _add_request_id(_logger: Any, _method: str, event: _Event) -> _Event:
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
        trace_id = TRACE_ID.get()
        if trace_id is not None:
            event.setdefault("trace_id", trace_id)
    return event


def _add_worker(_logger: Any, _name: str, event: _Event) -> _Event:
    if _WORKER:
        event.setdefault("worker", _WORKER[-1])
    return event


def _escape_values(_logger: Any, _method: str, event: _Event) -> _Event:
    """Escape control characters, so that no name from outside can forge a line or recolour a terminal."""
    for key, value in event.items():
        if isinstance(value, str) and _CONTROL.search(value):
            event[key] = _escape_text(value)
    return event


def _escape_text(text: str) -> str:
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text).encode("utf-8", "backslashreplace").decode()


def _replace_handlers(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
    # At debug both write a line for each system event.
    for name in ("asyncio", "watchdog"):
        logging.getLogger(name).setLevel(max(level, logging.INFO))
