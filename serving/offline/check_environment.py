"""Tries out an environment: a model that is fitted there passes the gates in a host there, or it is said why not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import serving
from serving import sandbox
from serving.domain.environment import Environment
from serving.domain.errors import EnvironmentRefused
from serving.domain.manifest import MANIFEST_NAME, Manifest, ManifestFile
from serving.domain.report import CandidateReport
from serving.domain.text import one_line
from serving.lifecycle.evaluation_request import Comparison
from serving.offline.offline_evaluator import Started, open_evaluator
from serving.settings import (
    EngineSettings,
    EnvironmentSettings,
    NamedEnvironment,
    SecuritySettings,
    Settings,
)

FIT_SECONDS = 120.0

_PROGRAM = Path(serving.__file__).parent / "host" / "fit_sample.py"
_MODEL, _VERSION, _FILE = "sample", "1", "model.joblib"


def check_environment(
    environment: Environment, settings: Settings, started: Started = lambda _: None
) -> CandidateReport:
    """Serve a small model in an environment as a server would, and return its report.

    It has no signature: where the settings ask for one, it is loaded as a signed one would be. `started` is called with
    each step. Blocks for seconds: two zygotes are started. Raises EnvironmentRefused when the environment has a
    problem, when no model can be fitted there, and when the gates refuse the one that was.
    """
    if environment.problem is not None:
        raise EnvironmentRefused(f"the environment '{environment.name}' cannot be used: {environment.problem}")
    with tempfile.TemporaryDirectory(prefix="serving-") as scratch:
        directory = Path(scratch) / _MODEL / _VERSION
        directory.mkdir(parents=True)
        started("fitting a model there")
        _fit(environment, directory / _FILE)
        (directory / MANIFEST_NAME).write_text(_describe(directory / _FILE, environment.name).model_dump_json())
        with open_evaluator(_make_settings(environment, settings, Path(scratch))) as evaluator:
            report = evaluator.evaluate(evaluator.stage(directory), Comparison(), started)
    if report.refusal is not None:
        reason = f"{report.refusal.gate}: {report.refusal.evidence}"
        raise EnvironmentRefused(
            f"no host can serve in the environment '{environment.name}': a model that was fitted there is refused by "
            f"{reason}"
        )
    return report


def _fit(environment: Environment, file: Path) -> None:
    try:
        done = subprocess.run(
            [environment.python, "-I", "-B", str(_PROGRAM), str(file)],
            env=sandbox.scrub_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=FIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentRefused(f"the environment '{environment.name}' cannot be used: {error}") from None
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise EnvironmentRefused(
            f"no model can be fitted in the environment '{environment.name}': "
            f"{one_line(''.join(last)) or f'status {done.returncode}'}; make it again with other versions"
        )


def _describe(file: Path, environment: str) -> Manifest:
    raw = file.read_bytes()
    listed = ManifestFile(name=file.name, sha256=hashlib.sha256(raw).hexdigest(), size=len(raw))
    now = datetime.now(UTC)
    return Manifest(model=_MODEL, version=_VERSION, created_at=now, files=(listed,), environment=environment)


def _make_settings(environment: Environment, settings: Settings, scratch: Path) -> Settings:
    """Return settings in which this is the only environment, and nothing else can be a reason to refuse the model."""
    named = {environment.name: NamedEnvironment(python=Path(environment.python))}
    return Settings(
        candidate=settings.candidate,
        engine=EngineSettings(compile="off"),
        environments=EnvironmentSettings(path=scratch / "none", named=named),
        security=SecuritySettings(trust="known" if settings.security.trust == "known" else "any"),
    )
