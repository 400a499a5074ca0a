"""Every estimator of scikit-learn 1.1 to 1.9, fitted there, and served in an environment with that version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from serving.domain.report import GateName
from serving.lifecycle.evaluation_request import Comparison
from serving.offline.offline_evaluator import OfflineEvaluator, open_evaluator
from serving.settings import load_settings

VERSIONS = ("1.1.3", "1.2.2", "1.3.2", "1.4.2", "1.5.2", "1.6.1", "1.7.2", "1.8.0", "1.9.1")
COMPILING = ("onnx", "skl2onnx", "onnxruntime")
FIT = Path(__file__).with_name("fit_everything.py")
AT_ONCE = 2
METHOD = """For each version of scikit-learn an environment is made with `serving environment create` (with onnx, \
skl2onnx and onnxruntime, so that models can be compiled), and every estimator of that version is fitted there \
(`benchmarks/fit_everything.py`) and saved with joblib, beside golden examples: 12 rows with the estimator's own \
answers by each method, which must be met exactly (`rtol` and `atol` 0). Then each is evaluated as a server evaluates \
a version: "served" passed every gate (without the examples, where they alone were not met), "equal" met every number \
bit for bit in its host, and "compiled" is answered from a graph that was proved (within `engine.compile_tolerance`) \
and is faster. Estimators that answer nothing after their fit (such as DBSCAN) are not counted. 1.9.1 is the server's \
own."""


def run(run: Run) -> Result:
    """Make the environments, fit, and evaluate everything."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    versions = run.count(len(VERSIONS), 1)
    rows: list[tuple[str | float, ...]] = []
    problems: list[tuple[str | float, ...]] = []
    totals: Counter[str] = Counter()
    for version in VERSIONS[::-1][:versions]:
        seen = measure(version, run.cache / "environments", run.scratch / version)
        totals += seen
        rows.insert(0, (version, *(float(seen[name]) for name in ("fitted", "served", "equal", "compiled"))))
        problems += [(version, name, reason) for name, reason in read_problems(run.scratch / version)]
    return Result(
        name="environments",
        title="Every estimator of scikit-learn 1.1 to 1.9, where it was fitted",
        method=METHOD,
        figures=(
            figure("estimators of all versions", "", float(totals["fitted"])),
            figure("served", "%", 100 * totals["served"] / totals["fitted"]),
            figure("equal bit for bit, of those served", "%", 100 * totals["equal"] / totals["served"]),
            figure("compiled, of those served", "%", 100 * totals["compiled"] / totals["served"]),
        ),
        tables=(
            Table("By version", ("scikit-learn", "fitted", "served", "equal", "compiled"), tuple(rows)),
            Table("Not served, or not equal", ("scikit-learn", "estimator", "why"), tuple(problems)),
        ),
    )


def measure(version: str, environments: Path, directory: Path) -> Counter[str]:
    """Fit and evaluate everything of one version; return how many estimators were fitted, served, equal, compiled."""
    directory.mkdir(parents=True)
    name = f"sk{version.replace('.', '')}"
    python = sys.executable if version == VERSIONS[-1] else _make_environment(name, version, environments)
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([python, "-I", FIT, directory], check=True, env=variables)
    settings = load_settings({"environments.path": environments, "state.path": directory / "state"})
    seen: Counter[str] = Counter()
    problems: dict[str, str] = {}
    with open_evaluator(settings) as evaluator, ThreadPoolExecutor(AT_ONCE) as pool:
        places = sorted(place for place in directory.iterdir() if place.name != "state" and place.is_dir())
        for place, (counts, problem) in zip(places, pool.map(partial(_evaluate, evaluator), places), strict=True):
            seen.update(counts)
            if problem is not None:
                problems[place.name] = problem
    (directory / "problems.json").write_text(json.dumps(problems, indent=1))
    return seen


def read_problems(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield the estimators of one version that were refused, each with the reason."""
    problems: dict[str, str] = json.loads((directory / "problems.json").read_text())
    yield from sorted(problems.items())


def _evaluate(evaluator: OfflineEvaluator, place: Path) -> tuple[dict[str, int], str | None]:
    """Return what counts for one estimator, and what is wrong with it; where only its examples are, look further."""
    report = evaluator.evaluate(evaluator.stage(place / "1"), Comparison(), lambda _: None)
    refusal = report.refusal
    is_equal = refusal is None
    if refusal is not None and refusal.gate == GateName.GOLDEN:
        (place / "1" / "golden.json").unlink()
        report = evaluator.evaluate(evaluator.stage(place / "1"), Comparison(), lambda _: None)
        refusal = report.refusal or refusal
    is_served = report.refusal is None
    counts = {"fitted": 1, "served": is_served, "equal": is_served and is_equal, "compiled": report.is_compiled}
    return counts, None if refusal is None else f"{refusal.gate}: {refusal.evidence}"


def _make_environment(name: str, version: str, environments: Path) -> Path:
    """Return the interpreter of an environment with this scikit-learn; made once, and kept for the next run."""
    python = environments / name / "bin" / "python"
    if not (environments / name / "environment.json").exists():
        wanted: list[Any] = [f"scikit-learn=={version}", *COMPILING]
        command = [sys.executable, "-m", "serving", "environment", "create", name]
        variables = {**os.environ, "SERVING_ENVIRONMENTS__PATH": str(environments)}
        more = [each for requirement in wanted for each in ("--with", requirement)]
        subprocess.run([*command, *more], check=True, env=variables)
    return python


if __name__ == "__main__":  # one version into a directory: python -m benchmarks.environments VERSION DIRECTORY
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    place = Path(sys.argv[2])
    print(sys.argv[1], dict(measure(sys.argv[1], place / "environments", place / sys.argv[1])))
