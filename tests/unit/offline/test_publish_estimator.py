"""Publishing an estimator through the gates: from a notebook, a script, a thread, and where it is interrupted."""

from __future__ import annotations

import importlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import serving
from serving.domain.errors import HostDied, PublishRefused
from serving.domain.manifest import parse_manifest
from serving.domain.version import digest_of
from serving.hosting import environment_hosts
from serving.hosting.zygote import Zygote
from serving.offline import check, publish
from serving.offline.bare_publishing import refuse_early
from serving.offline.keys import create_key
from serving.settings import load_settings
from serving.store.durable import sha256_of
from tests.e2e.harness import peculiar, until
from tests.unit.store.files import without_privileges
from tests.unit.test_offline import zygote  # noqa: F401  (one zygote for all tests of this file)

ROWS, SPECIES = load_iris(return_X_y=True)
ROOT = Path(__file__).parents[3]
TRAINED = """
import serving
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
X, y = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(X, y)
"""


@pytest.fixture(scope="module")
def iris() -> LogisticRegression:
    return LogisticRegression(max_iter=500).fit(ROWS, SPECIES)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that is not there yet, in a working directory of its own; compiling would take most of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVING_ENGINE__COMPILE", "off")
    return tmp_path / "store"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script of these lines in a directory of its own."""

    def run_script(code: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "train.py").write_text(textwrap.dedent(code))
        command = [sys.executable, "-W", "error", "train.py"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
        )

    return run_script


def environment(directory: Path) -> dict[str, str]:
    (directory / "tmp").mkdir(exist_ok=True)
    own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(directory / "tmp"), "SERVING_ENGINE__COMPILE": "off"}
    return {**os.environ, **own}


def refuse_directly(*_: Any) -> None:
    raise AssertionError("published past the gates")


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


# --- through the gates ------------------------------------------------------------------------------------------------


def test_an_estimator_passes_the_gates_and_what_they_saw_is_published(iris: Any, store: Path) -> None:
    published = serving.publish(iris, "iris", golden=ROWS[::50], X=ROWS, store="store")
    assert published.path == store / "iris" / "1"
    report = published.report
    assert report is not None
    assert report.is_ready
    verdicts = {result.gate: result.verdict for result in report.gates}
    assert [verdicts[gate] for gate in ("published", "integrity", "load", "golden")] == ["passed"] * 4
    manifest = parse_manifest((published.path / "manifest.json").read_bytes())
    assert manifest.signature == report.signature
    assert files_in(store) == ["iris", "iris/1", *(f"iris/1/{file}" for file in names_in(published.path))]


def test_the_bytes_that_are_published_are_those_that_were_evaluated(
    iris: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}
    evaluate = environment_hosts.evaluate_candidate

    def look(host: Any, request: Any, *others: Any) -> Any:
        seen.update({file.name: file.sha256 for file in request.files})
        return evaluate(host, request, *others)

    monkeypatch.setattr(environment_hosts, "evaluate_candidate", look)
    published = publish(iris, "iris", golden=ROWS[::50], store=store, version="7")
    on_disk = {path.name: sha256_of([path.read_bytes()]) for path in published.path.iterdir()}
    assert seen.keys() == on_disk.keys()
    assert {seen[name] == on_disk[name] for name in ("model.joblib", "golden.json")} == {True}
    assert published.digest == digest_of(on_disk.items())


def test_what_a_gate_refuses_is_not_published_and_says_which_and_why(iris: Any, store: Path) -> None:
    publish(iris, "m", store=store, check=False)
    with pytest.raises(
        PublishRefused, match=r"^refused by contract: .* takes 2 features.*; breaking=True does"
    ) as caught:
        publish(LinearRegression().fit(ROWS[:, :2], SPECIES), "m", store=store)
    report = caught.value.report
    assert report is not None
    assert report.refusal is not None
    assert (report.refusal.gate, caught.value.argument) == ("contract", "breaking")
    assert names_in(store / "m") == ["1"]
    assert publish(LinearRegression().fit(ROWS[:, :2], SPECIES), "m", store=store, breaking=True).version == "2"


def test_a_refusal_leaves_no_store_where_there_was_none(store: Path) -> None:
    (store.parent / "settings.toml").write_text("[gates]\nmax_latency_seconds = 1e-9\n")
    with pytest.raises(PublishRefused, match=r"^refused by budget: "):
        publish(LinearRegression().fit(ROWS, SPECIES), "m", store=store)
    assert files_in(store.parent) == ["settings.toml"]


def test_the_settings_of_the_working_directory_hold_and_the_store_goes_over_them(
    iris: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVING_STORE__PATH", "elsewhere")
    assert publish(iris, "iris", check=False).path == store.parent / "elsewhere" / "iris" / "1"
    assert publish(iris, "iris", check=False, store="store", version=4).path == store / "iris" / "4"
    monkeypatch.setenv("SERVING_SECURITY__TRUST", "signed")
    with pytest.raises(PublishRefused, match=r'sign it \(sign="KEYFILE"\)$'):
        publish(iris, "iris", store=store)
    public = create_key(store.parent / "key")
    monkeypatch.setenv("SERVING_SECURITY__TRUSTED_KEYS", str(public))
    report = publish(iris, "iris", store=store, sign=store.parent / "key").report
    assert report is not None
    assert {result.gate: result.verdict for result in report.gates}["provenance"] == "passed"


def test_refusals_name_the_keyword_that_would_change_them(iris: Any, store: Path) -> None:
    publish(iris, "iris", store=store, version="1", check=False)
    for arguments, ending in (
        ({"model": "iris", "version": "01"}, r"\(version=\)"),
        ({"model": "IRIS"}, r"\(model=\)"),
        ({"model": "iris", "store": store / "no" / "such"}, r"there is no directory '.*/store/no' \(store=\)"),
        ({"model": "iris", "golden": [[1, 2]]}, r"row 0 has 2 values, .*\(golden=\)"),
        ({"model": "iris", "golden": "golden.json"}, r"golden examples are rows, .*; not 'golden.json' \(golden=\)"),
        ({"model": "iris", "golden": {"x0": 1.0}}, r"a dict is one row: put it into a list \(golden=\)"),
        ({"model": "iris", "X": ROWS[:, :2]}, r"the sample has the shape .* \(X=\)"),
        ({"model": "iris", "metrics": 0.9}, r"metrics are values by name, .* \(metrics=\)"),
        (
            {"model": "iris", "metrics": {"all": [math.nan]}},
            r"manifest.json cannot be written as JSON: .* \(metrics=\)",
        ),
        ({"model": None}, r"the name of a model is a text, not None \(model=\)"),
        ({"model": "my model", "store": store / "new"}, r"'my model' is not a name: .* \(model=\)"),
    ):
        with pytest.raises(PublishRefused, match=f"{ending}$"):
            publish(iris, **{"store": store, "check": False, **arguments})  # type: ignore[arg-type]
    assert files_in(store) == ["iris", "iris/1", "iris/1/manifest.json", "iris/1/model.joblib"]


def test_a_store_that_cannot_be_written_is_said_before_anything_is_evaluated() -> None:
    closed = Path(tempfile.mkdtemp())
    try:
        for mode, words in (
            (0o555, f"cannot be written: no permission for '{closed}'"),
            (0o000, "cannot be read: Perm"),
        ):
            closed.chmod(mode)
            with without_privileges(), pytest.raises(PublishRefused, match=words):
                refuse_early(closed, "iris", "1")
    finally:
        closed.rmdir()


# --- where the gates do not run ---------------------------------------------------------------------------------------


def test_the_gates_are_left_out_where_that_is_asked_for(
    iris: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_hosts, "Zygote", refuse_directly)
    assert publish(iris, "iris", store=store, check=False).report is None


@pytest.mark.parametrize("interpreter", ["/nonexistent/python", "/bin/false"])
def test_gates_that_cannot_run_are_said_to_have_been_left_out(
    interpreter: str, iris: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that embeds Python has no interpreter to start; or there is one that has no `serving`."""
    monkeypatch.setattr(environment_hosts, "Zygote", Zygote)
    monkeypatch.setattr(sys, "executable", interpreter)
    with pytest.warns(UserWarning, match=r"^published without the gates, which cannot run here \(") as warned:
        published = publish(iris, "iris", store=store)
    assert published.report is None
    assert published.path.is_dir()
    assert [warning.filename for warning in warned] == [__file__]


def test_a_host_that_ends_before_the_file_is_opened_is_no_refusal(
    iris: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, asked = environment_hosts.evaluate_candidate, []

    def end_first(host: Any, *rest: Any) -> Any:
        asked.append(host)
        if len(asked) == 1:
            raise HostDied("the process exited with status 1")
        return evaluate(host, *rest)

    monkeypatch.setattr(environment_hosts, "evaluate_candidate", end_first)
    assert publish(iris, "iris", store=store).report is not None
    assert len(asked) == 2


def test_a_full_disk_and_a_host_that_is_killed_are_said_and_leave_nothing(
    iris: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(host: Any, *_: Any) -> Any:
        host.kill()
        raise HostDied("the process was killed from outside")

    with monkeypatch.context() as patch:
        patch.setattr(environment_hosts, "evaluate_candidate", kill)
        with pytest.raises(
            PublishRefused, match=r"the gates did not finish: .* from outside; try again, or with check"
        ):
            publish(iris, "iris", store=store)
    monkeypatch.setattr(tempfile, "tempdir", str(store.parent / "gone"))
    with pytest.raises(
        PublishRefused, match=r"in '.*/gone': No such file or directory; TMPDIR names another, check=Fa"
    ):
        publish(iris, "iris", store=store)
    assert files_in(store.parent) == []


# --- wherever it is called from ---------------------------------------------------------------------------------------


def test_a_notebook_has_no_guard_and_a_loop_that_runs_in_its_main_thread(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = run(
        f"""{TRAINED}
import asyncio, os, threading
print("begin")
async def cell():
    return serving.publish(model, "iris", golden=X[:5])
assert asyncio.run(cell()).report.is_ready
assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no children")
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "begin\nno children\n", "")
    assert names_in(tmp_path / "tmp") == []
    assert names_in(tmp_path / "model_store" / "iris") == ["1"]


def test_two_publish_at_once_and_the_filters_of_warnings_stay(iris: Any, store: Path) -> None:
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        published = list(pool.map(lambda _: publish(iris, "iris", store=store, golden=ROWS[:5]), range(2)))
    assert sorted(each.version for each in published) == ["1", "2"]
    assert warnings.filters == before


def test_nothing_of_the_file_is_loaded_in_this_process(iris: Any, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib, "load", refuse_directly)
    monkeypatch.setattr("serving.host.loading.load_model", refuse_directly)
    assert publish(iris, "iris", store=store).report is not None


def test_ctrl_c_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    """Also where it comes once more while they are removed."""
    (tmp_path / "train.py").write_text(
        f"""{TRAINED}
import os, shutil, signal, threading
def remove_interrupted(*path, remove=shutil.rmtree, **options):
    os.kill(os.getpid(), signal.SIGINT)
    remove(*path, **options)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background of a script has none
shutil.rmtree = remove_interrupted
try:
    serving.publish(model, "iris")
except KeyboardInterrupt:
    print("interrupted", flush=True)
    threading.Event().wait()
"""
    )
    command = [sys.executable, "train.py"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as child:
        try:
            until(lambda: children_of(child.pid) or child.poll() is not None, "the zygote")
            child.send_signal(signal.SIGINT)
            assert child.stdout is not None
            assert child.stdout.readline() == "interrupted\n"
            assert children_of(child.pid) == []
            assert names_in(tmp_path) == ["tmp", "train.py"]
            assert names_in(tmp_path / "tmp") == []
        finally:
            child.kill()


def children_of(pid: int) -> list[str]:
    found: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended
            found += (task / "children").read_text().split()
    return found


# --- features that only X knows ---------------------------------------------------------------------------------------


def test_features_of_a_sample_are_declared_and_honoured_when_the_file_is_loaded(store: Path) -> None:
    """The estimator that is published knows more than the one that comes out of the file."""
    (store.parent / "settings.toml").write_text('[security]\ntrust = "any"\n')
    frame = pd.DataFrame(ROWS[:, :2], columns=["length", "width"])
    pipeline = make_pipeline(peculiar.Doubled(), LinearRegression()).fit(frame, SPECIES)
    for estimator, X, names in (
        (pipeline, frame, ["length", "width"]),
        (pipeline, ROWS[:, :2], ["x0", "x1"]),
        (peculiar.Forgetful().fit(ROWS[:, :2]), None, ["x0", "x1"]),
    ):
        published = publish(estimator, "m", store=store, X=X, golden=frame[:3], breaking=True)
        report = published.report
        assert report is not None
        assert report.signature is not None
        assert [feature.name for feature in report.signature.features] == names
        assert check(published.path, load_settings()).signature == report.signature


def test_a_declared_signature_that_contradicts_the_estimator_is_refused_and_both_are_said(
    iris: Any, store: Path
) -> None:
    published = publish(iris, "m", store=store, check=False)
    manifest = (published.path / "manifest.json").read_text()
    manifest = manifest.replace('"name": "x3"', '"name": "x3"}, {"name": "x4"')
    (published.path / "manifest.json").write_text(manifest)
    refusal = check(published.path, load_settings()).refusal
    assert refusal is not None
    assert (refusal.gate, refusal.evidence.split(":")[0]) == (
        "contract",
        "manifest.json declares 5 features, the model takes 4",
    )


def test_a_sample_with_other_columns_is_refused_before_anything_is_written(store: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=list("abcd"))
    model = LogisticRegression(max_iter=500).fit(frame, SPECIES)
    with pytest.raises(PublishRefused, match=r"^the sample has no column 'd', .* was fitted with \(X=\)$"):
        publish(model, "m", store=store, X=frame[["a", "b", "c"]])
    assert files_in(store.parent) == []


@pytest.mark.parametrize("library", ["catboost", "statsmodels"])
def test_estimators_of_other_libraries_are_published_with_their_sample(library: str, store: Path) -> None:
    (store.parent / "settings.toml").write_text('[security]\ntrust = "any"\n')
    frame = pd.DataFrame(ROWS, columns=list("abcd"))
    module = pytest.importorskip(library)
    if library == "catboost":
        model = module.CatBoostClassifier(iterations=5, verbose=0, allow_writing_files=False).fit(frame, SPECIES)
    else:
        model = pytest.importorskip("statsmodels.api").OLS(SPECIES, frame).fit()
    published = publish(model, "m", store=store, X=frame, golden=frame[:3])
    assert published.report is not None
    assert published.report.signature is not None
    assert [feature.name for feature in published.report.signature.features] == list("abcd")
    assert check(published.path, load_settings()).is_ready


# --- names that no server can import ----------------------------------------------------------------------------------


def test_what_only_this_process_has_is_refused_before_anything_is_written(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def local(X: Any) -> Any:
        return X

    def own(X: Any) -> Any:
        return X

    own.__module__, own.__qualname__ = "__main__", "own"
    monkeypatch.setattr(sys.modules["__main__"], "own", own, raising=False)
    monkeypatch.setattr(environment_hosts, "Zygote", refuse_directly)
    for function, words in (
        (
            lambda X: X,
            r"^the estimator holds a lambda of [\w.]+test_publish_estimator \(line \d+\): no other process can import ",
        ),
        (
            local,
            r"^the estimator holds the function .*\.<locals>\.local: .*; FunctionTransformer can also take a function",
        ),
        (partial(own), r"^the estimator holds the function __main__\.own, of this script or notebook itself"),
        (partial(np.add, threading.Lock()), r"^the estimator cannot be written into a file: TypeError: cannot pickle "),
    ):
        model = make_pipeline(FunctionTransformer(function), LinearRegression())
        model[-1].fit(ROWS, SPECIES)
        for check_first in (True, False):
            with pytest.raises(PublishRefused, match=words):
                publish(model, "m", store=store, X=ROWS, check=check_first)
    assert files_in(store.parent) == []


def test_a_function_of_numpy_passes_the_gates(store: Path) -> None:
    model = make_pipeline(FunctionTransformer(np.log1p), LinearRegression()).fit(ROWS, SPECIES)
    report = publish(model, "m", store=store, X=ROWS).report
    assert report is not None
    assert report.is_ready


def test_modules_of_the_working_directory_are_named_with_what_finds_them(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.parent / "own_features.py").write_text("def halve(X):\n    return X / 2\n")
    monkeypatch.syspath_prepend(store.parent)
    halve = importlib.import_module("own_features").halve
    model = make_pipeline(FunctionTransformer(halve), LinearRegression()).fit(ROWS, SPECIES)
    advice = (
        rf"the server has to find too: own_features \({store.parent}/own_features.py\); install them there, or start"
    )
    with pytest.warns(UserWarning, match=advice):
        publish(model, "m", store=store, X=ROWS, check=False)
    names = "^refused by load: the file names own_features.halve, which is not on the list; if you trust it: "
    with pytest.raises(
        PublishRefused, match=rf"{names}.*{advice}.*set os.environ\['PYTHONPATH'\] to it before"
    ) as caught:
        publish(model, "m", store=store, X=ROWS)
    assert caught.value.report is not None
    monkeypatch.setattr("own_features.halve", lambda X: X / 2)
    with pytest.raises(PublishRefused, match=r"the function own_features.halve from before its module was loaded ag"):
        publish(model, "m", store=store, X=ROWS)
    monkeypatch.setattr("own_features.halve", halve)
    monkeypatch.setenv("PYTHONPATH", str(store.parent))
    publish(model, "m", store=store, X=ROWS, check=False)  # without a warning
