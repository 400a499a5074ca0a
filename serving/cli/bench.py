"""``serving bench``: measures how fast a running server answers for one model."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.cli.client import CallFailed, ServerClient, choose_server_url, choose_token
from serving.cli.load_generator import Tally, generate_load
from serving.cli.operate import Name, Url
from serving.cli.output import can_show, is_terminal, one_line, show
from serving.domain.signature import Container, Dtype, Signature
from serving.domain.status import ModelStatus
from serving.settings import TokenScope, load_settings

TIMEOUT_SECONDS = 60.0
SAMPLE_VALUES = {Dtype.NUMBER: 0.5, Dtype.STRING: "a", Dtype.BOOL: True, Dtype.ANY: 0.5}
BARS, BAR_WIDTH = 12, 40
EIGHTHS = " ▏▎▍▌▋▊▉█"


def bench(
    name: Name,
    *,
    url: Url = None,
    rows: Annotated[int | None, typer.Option(metavar="N", min=1, help="Rows in each request.  [default: 1]")] = None,
    connections: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="How many connections send requests.", show_default=True)
    ] = 16,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="How long to send requests.", show_default=True)
    ] = 5.0,
    golden: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Take the rows from golden examples."),
    ] = None,
    body: Annotated[
        Path | None, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Send this file as it is.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with the admin token; not given: security.read_token and predict_token."
        ),
    ] = None,
) -> None:
    """Measure how fast a running server answers.

    Sends the same prediction again and again over open connections. The rows are made up from the model's signature
    (0.5 for a number, "a" for a string); --golden and --body send others.

    On the machine of the server, the load generator takes up to one core from it: the server alone is then faster than
    the figures.
    """
    if body and (golden or rows):
        raise typer.BadParameter("a body is sent as it is: no --golden or --rows with it", param_hint="--body")
    token = choose_token(TokenScope.READ, token_file)
    server = ServerClient(choose_server_url(url, load_settings().server), token, TIMEOUT_SECONDS, TokenScope.READ)
    predict_token = choose_token(TokenScope.PREDICT, token_file)
    model = server.parse_answer(ModelStatus, server.get("models", name))
    content, about = _build_body(model, rows or 1, golden, body)
    show(one_line(f"{name} at {server.url}: {about}, {connections} connections, {seconds:g} s"))
    tally = Tally()
    with _show_progress(tally, seconds) as tick:
        elapsed = asyncio.run(
            generate_load(tally, server.url, name, content, connections, seconds, tick, token=predict_token)
        )
    _show_tally(tally, elapsed, server.parse_answer(ModelStatus, server.get("models", name)))
    if tally.failures or not tally.seconds:
        raise typer.Exit(1)


# --- the request -----------------------------------------------------------------------------------------------------


def _build_body(model: ModelStatus, rows: int, golden: Path | None, body: Path | None) -> tuple[bytes, str]:
    """Return the body of every request and its description; raises CallFailed when there are no rows to send."""
    if body is not None:
        content = body.read_bytes()
        return content, f"{body}, {len(content):,} bytes"
    if golden is not None:
        instances, source = _read_golden_rows(golden), f"from {golden}"
    elif model.signature is not None:
        instances, source = [_make_row(model.signature)], "made up from the signature"
    else:
        raise CallFailed(f"'{model.name}' has no active version; 'serving status' says why")
    chosen = [instances[number % len(instances)] for number in range(rows)]
    return json.dumps({"instances": chosen}).encode(), f"{rows} row{'s' * (rows != 1)} {source}"


def _read_golden_rows(file: Path) -> list[Any]:
    try:
        instances = json.loads(file.read_bytes())["instances"]
    except (ValueError, KeyError, TypeError):
        instances = None
    if not isinstance(instances, list) or not instances:
        raise CallFailed(
            f"'{file}' holds no golden examples: an object with 'instances', an array of rows, is expected"
        )
    return instances


def _make_row(signature: Signature) -> Any:
    if signature.container is Container.OBJECTS:
        return {"a": 0.5}
    if signature.container is Container.TEXTS:
        return "a"
    return [SAMPLE_VALUES[feature.dtype] for feature in signature.features]


# --- the output -----------------------------------------------------------------------------------------------------


@contextmanager
def _show_progress(tally: Tally, seconds: float) -> Iterator[Callable[[float], None]]:
    """Yield a function that draws a bar on a terminal; elsewhere it does nothing."""
    if not is_terminal():
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    with Progress(BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn(), transient=True) as bar:
        task = bar.add_task("", total=seconds)
        yield lambda elapsed: bar.update(task, completed=min(elapsed, seconds), description=f"{tally.ended:,} requests")


def _show_tally(tally: Tally, elapsed: float, model: ModelStatus) -> None:
    ordered = sorted(tally.seconds)
    engines = {one.version: one.engine for one in model.versions}
    for version, count in tally.versions.most_common():
        show(one_line(f"answered by version {version}, engine {engines.get(version) or 'unknown'}: {count:,} answers"))
    show(f"requests/s   {len(ordered) / elapsed:,.0f}")
    if ordered:
        named = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
        texts = (f"{key} {_find_quantile(ordered, share) * 1000:.2f} ms" for key, share in named.items())
        show(f"latency      {', '.join(texts)}")
    show(f"failures     {tally.failures.total():,} of {tally.ended:,}")
    times = "×" if can_show("×") else "x"
    for why, count in tally.failures.most_common(3):
        show(f"             {count:,} {times} {why}")
    for line in draw_histogram(ordered):
        show(line)


def _find_quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def draw_histogram(ordered: Sequence[float]) -> list[str]:
    """Return the lines of a histogram of sorted latencies in seconds, with `BARS` classes of growing width.

    Bars are made of ``#`` when standard output cannot show blocks.
    """
    if not ordered or ordered[0] <= 0:
        return []
    factor = max((ordered[-1] / ordered[0]) ** (1 / BARS), 1.0001)
    counts = Counter(min(BARS - 1, int(math.log(one / ordered[0], factor))) for one in ordered)
    lines = []
    has_blocks = can_show(f"≤{EIGHTHS}")
    for number in range(min(BARS, max(counts) + 1)):
        eighths = math.ceil(counts[number] / max(counts.values()) * BAR_WIDTH * 8)
        bar = "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip() if has_blocks else "#" * math.ceil(eighths / 8)
        upper = ordered[0] * factor ** (number + 1) * 1000
        lines.append(f"  {'≤' if has_blocks else '<='} {upper:9.2f} ms  {bar} {counts[number]:,}")
    return lines
