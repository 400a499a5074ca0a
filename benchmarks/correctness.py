"""Every kind of model against itself: ``python -m benchmarks.correctness [--fast] [--only PATTERN] [--every N]``.

Fits, drops into the stores of real servers, asks in every protocol, alone and from 48 clients, and compares with the
model in this environment (tests/correctness). Writes docs/correctness.md unless only a part was asked for; exits with 1
where an answer differs or a row or file is refused that should not be. Blocks for about 20 minutes on two cores that do
nothing else.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from itertools import chain, islice

from benchmarks import circumstances, run
from benchmarks.correctness_page import differing, is_remarkable, notes_of, part_of, render, sums_of, table_of
from tests.correctness.asking import Finding
from tests.correctness.cases import Subject, boosters, categories, compositions, estimators
from tests.correctness.running import run as ask_all
from tests.correctness.tables import files, tables

PAGE = run.ROOT / "docs" / "correctness.md"
LAST = run.CACHE / "correctness.json"
FAST_EVERY = 40
FORM = r", (?:pickle \d|skops)"
SHARES = 8  # pieces of work, each evenly spread: more than processes, so that none is left alone at the end


def subjects(share: int, shares: int) -> Iterator[Subject]:
    """Yield one of so many shares of everything there is."""
    yield from chain(
        estimators(share, shares),
        islice(compositions(), share, None, shares),
        tables(share, shares),
        boosters(share, shares),
        categories(share, shares),
        files(share, shares),
    )


def measure(share: int, shares: int, only: str, until: float) -> list[Finding]:
    """Ask all of one share; runs in a process of its own. Tells each model on a line; begins none after `until`."""
    warnings.simplefilter("ignore")
    chosen: Iterable[Subject] = subjects(share, shares)
    if only:
        chosen = (each for each in chosen if re.search(only, f"{each.kind} / {each.name}"))
    found = []
    for finding in ask_all(_before(chosen, until)):
        found.append(finding)
        became = finding.refused or f"{finding.engine}, {finding.answers} answers"
        print("\n".join([f"{finding.kind} / {finding.name}: {became}", *differing(finding)]), flush=True)
    return found


def _before(chosen: Iterable[Subject], until: float) -> Iterator[Subject]:
    parent = os.getppid()
    for each in chosen:
        if time.monotonic() > until or os.getppid() != parent:
            return
        yield each


def main() -> int:
    """Ask everything, print the table, and write the page when it was everything."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.correctness", description="Compare answers with models."
    )
    parser.add_argument("--fast", action="store_true", help=f"every {FAST_EVERY}th model")
    parser.add_argument("--every", type=int, default=1, help="one in so many models, evenly spread")
    parser.add_argument("--only", default="", help="models whose kind and name this regular expression finds")
    parser.add_argument("--jobs", type=int, default=2, help="processes, each with a server of its own")
    parser.add_argument(
        "--seconds", type=float, default=36_000.0, help="begin no further group of models after this long"
    )
    parser.add_argument(
        "--again", action="store_true", help="ask those again of which the last run has something to say"
    )
    parser.add_argument("--page", action="store_true", help="ask nothing: write the page from the last run")
    options = parser.parse_args()
    if options.page:
        return _write_page()
    every = FAST_EVERY if options.fast else max(1, options.every)
    where, began = circumstances.describe(), time.monotonic()
    earlier = _read_last() if options.again else []
    names = {_name_of(one) for one in earlier if is_remarkable(one)}
    kept_before = [one for one in earlier if _name_of(one) not in names]
    again = len(earlier) - len(kept_before)
    if options.again:
        options.only = f"^(?:{'|'.join(map(re.escape, sorted(names)))})(?:{FORM})?$"
    minutes_before = json.loads(LAST.read_text(encoding="utf-8"))["minutes"] if options.again else 0.0
    found: list[Finding] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, max_tasks_per_child=1) as pool:
        work: list[Future[list[Finding]]] = [
            pool.submit(measure, share, SHARES * every, options.only, began + options.seconds)
            for share in range(SHARES)
        ]
        for done in as_completed(work):
            found += done.result()
            minutes = (time.monotonic() - began) / 60
            part = part_of(every, is_cut=minutes > options.seconds / 60, has_asked_again=options.again)
            if options.again and len(found) < again:
                continue  # the last run stays what it was until all have been asked again
            kept = {"where": where, "part": part, "minutes": minutes_before + minutes}
            kept["found"] = list(map(vars, [*kept_before, *found]))
            LAST.parent.mkdir(exist_ok=True)
            LAST.write_text(json.dumps(kept), encoding="utf-8")
    sums = sums_of(found)
    print("\n".join([table_of(sums), *notes_of(sums, found)]))
    if options.again or not (options.only or options.fast):
        _write_page()
    return int(any(one.differences or one.refused for one in sums.values()))


def _name_of(finding: Finding) -> str:
    """Return the name without the form, which comes by turns and is another one in the next run."""
    return re.sub(f"{FORM}$", "", f"{finding.kind} / {finding.name}")


def _read_last() -> list[Finding]:
    kept = json.loads(LAST.read_text(encoding="utf-8"))
    counts = ("guarded", "wires")
    return [Finding(**{**each, **{name: Counter(each[name]) for name in counts}}) for each in kept["found"]]


def _write_page() -> int:
    kept = json.loads(LAST.read_text(encoding="utf-8"))
    PAGE.write_text(render(_read_last(), kept["where"], kept["part"], kept["minutes"]), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(run.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
