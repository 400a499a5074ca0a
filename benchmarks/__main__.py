"""Run the benchmarks, or write the report: ``python -m benchmarks [--quick] [--report] [name ...]``."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

from rich.console import Console

from benchmarks import circumstances, report, run, show
from benchmarks.result import Result

USUAL = (
    *("footprint", "graph_memory", "drop", "predict", "large_swap", "compiled_swap"),
    *("swap_memory", "many_models", "many_compiled", "restart", "demo_start", "safety", "hostile_clients", "floods"),
    *("workers", "replay", "rollouts", "shadows", "record", "open_pages", "traces"),
)
# they install packages, or need another checkout
ON_REQUEST = ("against_peers", "swap_peers", "protocols", "other_environment", "environments", "earlier")
NAMES = (*USUAL, *ON_REQUEST)
RESULTS = run.ROOT / "benchmarks" / "results"
QUICK_RESULTS = run.CACHE / "quick"
REPORT = run.ROOT / "docs" / "performance.md"


def main() -> int:
    """Return the exit status: 1 when a benchmark could not be carried out. A missed target is no failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the running server.")
    which = f"of {', '.join(NAMES)}; all but the last {len(ON_REQUEST)} if none is given"
    parser.add_argument("names", nargs="*", metavar="name", help=which)
    parser.add_argument("--quick", action="store_true", help="a smoke test: few rounds, small models, no results kept")
    parser.add_argument("--report", action="store_true", help="write docs/performance.md from the results there are")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark is called {' or '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    directory = QUICK_RESULTS if options.quick else RESULTS
    if options.report:
        return _write_report(directory, is_quick=options.quick)
    results = []
    for name in options.names or USUAL:
        try:
            results.append(_measure(console, name, directory, is_quick=options.quick))
        except Exception:  # noqa: BLE001 - the others are measured all the same
            console.print_exception()
            console.print(f"{name} could not be measured", style="bold red")
    show.print_summary(console, results)
    return int(len(results) < len(options.names or USUAL))


def _measure(console: Console, name: str, directory: Path, *, is_quick: bool) -> Result:
    began = time.monotonic()
    console.print(f"measuring {name} ...")
    module = import_module(f"benchmarks.{name}")
    found = circumstances.describe()
    with run.begin(is_quick=is_quick) as place:
        measured: Result = module.run(place)
    measured.circumstances.update(found, seconds=round(time.monotonic() - began))
    measured.circumstances["busy_after_percent"] = circumstances.busy_percent()
    measured.write(directory)
    show.print_result(console, measured)
    return measured


def _write_report(directory: Path, *, is_quick: bool) -> int:
    results = report.load(directory)
    page = QUICK_RESULTS / "performance.md" if is_quick else REPORT
    (page.parent / "plots").mkdir(parents=True, exist_ok=True)
    for old in (page.parent / "plots").glob("*.svg"):
        old.unlink()
    for name, drawing in report.plots(results).items():
        (page.parent / "plots" / name).write_text(drawing, encoding="utf-8")
    page.write_text(report.render(results), encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
