"""One line for each event, whoever writes it, in the form that was asked for."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
import structlog

from serving.settings import LogSettings
from serving.telemetry.logging import REQUEST_ID, configure


class Terminal(io.StringIO):
    """Claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hook = list(root.handlers), root.level, threading.excepthook
    levels = {name: logging.getLogger(name).level for name in ("asyncio", "watchdog")}
    before = structlog.get_config()
    yield
    root.handlers[:], threading.excepthook = handlers, hook
    for name, its_level in {**levels, None: level}.items():
        logging.getLogger(name).setLevel(its_level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).propagate = True
    structlog.configure(**before)


def lines_of(settings: LogSettings, stream: io.StringIO | None = None) -> tuple[Any, io.StringIO]:
    out = io.StringIO() if stream is None else stream
    configure(settings, out)
    return structlog.get_logger("serving.test"), out


def test_json_has_one_object_per_line_with_level_and_time_in_utc() -> None:
    log, out = lines_of(LogSettings(format="json"))
    log.info("swapped", model="iris", seconds=0.25, at=datetime(2026, 11, 20, tzinfo=UTC), odd={1}, key={2: "x"})
    log.warning("two\nlines", path="a\r\nb")
    assert [*orjson.loads(out.getvalue().splitlines()[0])][:4] == ["timestamp", "level", "logger", "event"]
    first, second = map(orjson.loads, out.getvalue().splitlines())
    assert (first["event"], first["level"], first["model"], first["seconds"]) == ("swapped", "info", "iris", 0.25)
    assert (first["odd"], first["key"], first["at"]) == ("{1}", {"2": "x"}, "2026-11-20T00:00:00+00:00")
    assert datetime.fromisoformat(first["timestamp"]).utcoffset() == datetime.now(UTC).utcoffset()
    assert first["logger"] == "serving.test"
    assert (second["event"], second["path"]) == ("two\nlines", "a\r\nb")


@pytest.mark.parametrize("value", ["\ud800", 2**70, {"a": 2**70}, object(), b"\xff"])
def test_no_value_loses_a_line(value: Any) -> None:
    for form in ("json", "console"):
        log, out = lines_of(LogSettings(format=form))  # type: ignore[arg-type]
        log.info("kept", value=value)
        (line,) = out.getvalue().splitlines()
        assert "kept" in line


def test_a_name_from_outside_can_neither_forge_a_line_nor_colour_a_terminal() -> None:
    log, out = lines_of(LogSettings(format="console"))
    log.info("request", path="/a\nforged line\r\x1b[31m\u2028\x9b")
    logging.getLogger("uvicorn.error").info("bad %s", "\x1b[31m\nname")
    assert len(out.getvalue().splitlines()) == 2
    assert "\x1b" not in out.getvalue()
    assert "forged line" in out.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_line_holds_what_steers_a_terminal_or_turns_the_writing(form: Any) -> None:
    path = "/a\x7f\x9b31m\u202egnp.exe\u2066\u200b\ufeff"
    log, out = lines_of(LogSettings(format=form))
    log.info("request", path=path)
    line = out.getvalue().removesuffix("\n")
    assert line.isprintable()
    if form == "json":
        assert orjson.loads(line)["path"] == path


def test_auto_is_console_on_a_terminal_and_json_elsewhere_and_only_a_terminal_has_colours() -> None:
    log, out = lines_of(LogSettings(format="auto"), Terminal())
    log.info("hello")
    assert "\x1b[" in out.getvalue()
    log, out = lines_of(LogSettings(format="auto"))
    log.info("hello")
    assert out.getvalue().startswith("{")
    log, out = lines_of(LogSettings(format="console"))
    log.info("hello")
    assert "\x1b[" not in out.getvalue()
    log, out = lines_of(LogSettings(format="json"), Terminal())
    log.info("hello")
    assert out.getvalue().startswith("{")


def test_lines_below_the_level_are_left_out_for_everybody() -> None:
    log, out = lines_of(LogSettings(format="json", level="warning"))
    for one in (log, logging.getLogger("uvicorn.error"), logging.getLogger("elsewhere")):
        one.debug("no")
        one.info("no")
        one.warning("yes")
    assert [orjson.loads(line)["event"] for line in out.getvalue().splitlines()] == ["yes"] * 3
    log, out = lines_of(LogSettings(format="json", level="debug"))
    log.debug("yes")
    logging.getLogger("elsewhere").debug("yes")
    logging.getLogger("watchdog.observers").debug("too many")
    logging.getLogger("asyncio").debug("too many")
    assert [orjson.loads(line)["event"] for line in out.getvalue().splitlines()] == ["yes"] * 2


def test_other_libraries_write_the_same_lines_and_uvicorns_access_log_is_silent() -> None:
    for name in ("uvicorn", "uvicorn.access"):
        logging.getLogger(name).addHandler(logging.StreamHandler())
    _, out = lines_of(LogSettings(format="json"))
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 42)
    logging.getLogger("uvicorn.access").info("GET /")
    (line,) = map(orjson.loads, out.getvalue().splitlines())
    assert (line["event"], line["level"], line["logger"]) == ("Started server process [42]", "info", "uvicorn.error")
    assert not logging.getLogger("uvicorn.access").hasHandlers()


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_is_told_with_its_traceback_and_without_its_variables(form: Any) -> None:
    log, out = lines_of(LogSettings(format=form))

    def fail() -> None:
        secret = "hunter" + "2"
        raise ValueError(f"no {len(secret)}")

    for one in (log, logging.getLogger("uvicorn.error")):
        try:
            fail()
        except ValueError:
            one.exception("failed")
    text = out.getvalue()
    assert text.count("ValueError: no 7") == 2
    assert text.count("Traceback") == 2
    assert "hunter2" not in text
    assert form == "console" or len(text.splitlines()) == 2


def test_lines_of_a_request_carry_its_id() -> None:
    log, out = lines_of(LogSettings(format="json"))
    token = REQUEST_ID.set("r-1")
    log.info("inside")
    logging.getLogger("uvicorn.error").info("inside")
    REQUEST_ID.reset(token)
    log.info("outside")
    found = [orjson.loads(line).get("request_id") for line in out.getvalue().splitlines()]
    assert found == ["r-1", "r-1", None]


def test_configuring_twice_does_not_write_twice() -> None:
    stream = io.StringIO()
    lines_of(LogSettings(format="json"), stream)
    log, out = lines_of(LogSettings(format="json"), stream)
    log.info("once")
    logging.getLogger("elsewhere").info("once")
    assert len(out.getvalue().splitlines()) == 2


def test_configuring_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines_of(LogSettings())
