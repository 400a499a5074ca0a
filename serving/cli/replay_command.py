"""``serving replay``: asks a version the rows that were recorded, and compares what it answers with the record."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from serving.cli.client import CallFailed, ServerClient, choose_server_url, choose_token
from serving.cli.operate import TIMEOUT_SECONDS, Url
from serving.cli.output import one_line, show, show_progress
from serving.cli.replay_output import describe_tally, dump_tally
from serving.domain.signature import Signature
from serving.domain.status import ModelStatus
from serving.settings import TokenScope, load_settings

if TYPE_CHECKING:
    from serving.recording.compare_with_record import ReplayTally
    from serving.recording.read_records import RecordedRequest

OWN_IDS = "replay-"  # how the ids of the requests begin: what a server records of a replay is not replayed again
RUN = token_hex(4)
AT_ONCE = 4
WAITS_SECONDS = (0.1, 0.5, 1.0, 2.0, 4.0)  # before a request is sent again that a busy server has refused
BUSY = (429, 503)
SHOW_EVERY_SECONDS = 0.2


class _Reply(NamedTuple):
    """What came of one request: the answers to its rows, or why there are none."""

    answers: list[Any] | None
    refusal: str
    seconds: float


def replay(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", exists=True, help="Files of records, or directories of them.")
    ],
    *,
    model: Annotated[str, typer.Option(metavar="M", help="The model: records of others are passed over.")],
    version: Annotated[str, typer.Option(metavar="V", help="The version to ask; it must be loaded.")],
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many rows to ask at most.")] = None,
    tolerance: Annotated[
        float,
        typer.Option(metavar="T", min=0.0, help="How far apart numbers may be, relative to the recorded ones."),
    ] = 1e-5,
    url: Url = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with a token; not given: security.read_token and predict_token."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Ask a version the recorded rows, and compare its answers with the recorded ones.

    Exits with 0 when all rows are answered as recorded, with 1 when one is not, or none could be asked. The records are
    those of the setting record.sample; see "The log of predictions" in docs/operations.md.
    """
    from serving.recording.compare_with_record import ReplayTally  # noqa: PLC0415  (numpy: not for --help)
    from serving.recording.read_records import list_record_files  # noqa: PLC0415  (the same)

    paths = list_record_files(files)
    where = choose_server_url(url, load_settings().server)
    reader = ServerClient(where, choose_token(TokenScope.READ, token_file), TIMEOUT_SECONDS, TokenScope.READ)
    token = choose_token(TokenScope.PREDICT, token_file)
    server = ServerClient(where, token, TIMEOUT_SECONDS, TokenScope.PREDICT)
    signature = _find_signature(reader, model)
    tally = ReplayTally(tolerance)
    with show_progress(f"Asking {model}/{version}") as show_step:
        asked = _iterate_requests(paths, model, limit, tally)
        _ask_all(
            asked, lambda request, number: _ask(server, model, version, request, number), signature, tally, show_step
        )
    if as_json:
        show(json.dumps(dump_tally(tally, model, version), indent=2))
    else:
        for line in describe_tally(tally, one_line(f"{model}/{version}")):
            show(line)
    if not tally.is_same:
        raise typer.Exit(1)


def _find_signature(server: ServerClient, name: str) -> Signature:
    """Return the signature of the active version: the contract that all versions of a model keep."""
    found = server.parse_answer(ModelStatus, server.get("models", name)).signature
    if found is None:
        raise CallFailed(f"'{name}' has no active version; 'serving status' says why")
    return found


def _iterate_requests(
    paths: list[Path], model: str, limit: int | None, tally: ReplayTally
) -> Iterator[RecordedRequest]:
    """Yield what is to be asked; what is passed over is counted."""
    from serving.recording.read_records import read_requests  # noqa: PLC0415  (numpy: not for --help)

    left = limit
    for path in paths:
        for request in _iterate_present(read_requests(path), tally):
            if (request.request_id or "").startswith(f"{OWN_IDS}{RUN}-"):
                continue  # the server records while this runs
            reason = _why_skipped(request, model)
            if reason is not None:
                tally.skipped[reason] += len(request.rows)
                continue
            chosen = request
            if left is not None:
                chosen = request._replace(rows=request.rows[:left], answers=request.answers[:left])
                left -= len(chosen.rows)
            yield chosen
            if left == 0:
                return


def _iterate_present(requests: Iterator[RecordedRequest], tally: ReplayTally) -> Iterator[RecordedRequest]:
    """Yield the requests of a file; one that the server has removed since it was found is counted."""
    try:
        yield from requests
    except FileNotFoundError:
        tally.removed_files += 1


def _why_skipped(request: RecordedRequest, model: str) -> str | None:
    if request.model != model:
        return f"recorded of another model, {request.model}"
    if request.left_out:
        return f"values were left out: {', '.join(request.left_out)}"
    if (request.request_id or "").startswith(OWN_IDS):
        return "recorded of an earlier replay"
    return None


def _ask_all(
    requests: Iterator[RecordedRequest],
    ask: Callable[[RecordedRequest, int], _Reply],
    signature: Signature,
    tally: ReplayTally,
    show_step: Callable[[str], None],
) -> None:
    """Ask a few at once, in order. Raises CallFailed when nothing can be asked at all."""
    shown = 0.0
    under_way: deque[tuple[RecordedRequest, Future[_Reply]]] = deque()

    def take_next() -> None:
        request, future = under_way.popleft()
        reply = future.result()
        if reply.answers is None:
            tally.refused[reply.refusal] += len(request.rows)
        else:
            tally.add(request, reply.answers, reply.seconds, signature)

    with ThreadPoolExecutor(AT_ONCE, "replay") as threads:
        try:
            for number, request in zip(count(1), requests, strict=False):
                under_way.append((request, threads.submit(ask, request, number)))
                if len(under_way) >= 2 * AT_ONCE:
                    take_next()
                if time.monotonic() - shown > SHOW_EVERY_SECONDS:
                    shown = time.monotonic()
                    show_step(f"{tally.asked:,} rows, {tally.asked - tally.equal:,} not as recorded")
            while under_way:
                take_next()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _ask(server: ServerClient, model: str, version: str, request: RecordedRequest, number: int) -> _Reply:
    body = {"instances": request.rows, "method": request.method}
    identity = f"{OWN_IDS}{RUN}-{number}"
    for wait in (*WAITS_SECONDS, None):
        began = time.perf_counter()
        try:
            answer = server.post("models", model, "versions", version, "predict", body=body, request_id=identity)
        except CallFailed as failed:
            if failed.status in BUSY and wait is not None:
                time.sleep(wait)
                continue
            if failed.status in (None, 401, 403, 404):  # there is no server, no access or no such version
                raise
            return _Reply(None, str(failed), 0.0)
        seconds = time.perf_counter() - began
        answers = answer.get("predictions") if isinstance(answer, dict) else None
        if not isinstance(answers, list) or len(answers) != len(request.rows):
            raise CallFailed(f"{server.url} answered something else than {len(request.rows)} predictions")
        return _Reply(answers, "", seconds)
    raise AssertionError("the last attempt answers or fails")
