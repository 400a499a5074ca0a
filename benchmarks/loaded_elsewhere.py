"""Every option of each scikit-learn, loaded by that scikit-learn: ``python -m benchmarks.loaded_elsewhere [1.5 ...]``.

Makes an environment for each version by the command for it, fits every estimator there, saves it with joblib, loads it
there by the restricted loader of this package, and compares its answers, bit for bit, with those that it gave before.
``--python`` names an interpreter that has one version already. Prints a table. Blocks for minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import run

# the last release of each minor version that has wheels for one of these Pythons
RELEASES = {
    "1.0": ("1.0.2", "3.9"),
    "1.1": ("1.1.3", "3.10"),
    "1.2": ("1.2.2", "3.11"),
    "1.3": ("1.3.2", "3.11"),
    "1.4": ("1.4.2", "3.11"),
    "1.5": ("1.5.2", "3.11"),
    "1.6": ("1.6.1", "3.11"),
    "1.7": ("1.7.2", "3.11"),
    "1.8": ("1.8.0", "3.11"),
    "1.9": ("1.9.1", "3.11"),
}
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples")

_ASK = f"""
def ask(model, rows):
    answers = {{}}
    for method in {METHODS!r}:
        try:
            answers[method] = getattr(model, method)(rows)
        except Exception:
            continue
    return answers
"""
# fits in the environment, with the models of the tests; knows nothing of the restricted loader
_FIT = f"""
import json, pathlib, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {str(run.ROOT)!r})
from benchmarks.lenient_import import import_leniently
import joblib
{_ASK}
place = pathlib.Path(sys.argv[1])
labels = []
for fitted in import_leniently("tests.sound").every_kind():
    answers = ask(fitted.estimator, fitted.rows)
    if answers:
        joblib.dump(fitted.estimator, place / f"{{len(labels)}}.model")
        joblib.dump((fitted.rows, answers), place / f"{{len(labels)}}.answers")
        labels.append(str(fitted))
print(json.dumps(labels))
"""
# loads in the environment, as a host does there
_LOAD = f"""
import importlib.util, json, sys, warnings
warnings.simplefilter("ignore")
package = {str(run.ROOT / "serving")!r}
spec = importlib.util.spec_from_file_location("enter", package + "/host/enter.py")
enter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(enter)
enter.register_package(package)
enter.substitute_modules()
import joblib, numpy as np
from scipy import sparse
from serving.domain.version import Format
from serving.host.loading import load_model
from serving.host.restricted import load_restricted
{_ASK}
def bits(value):
    if sparse.issparse(value):
        return [value.shape, bits(value.toarray())]
    if isinstance(value, (list, tuple)):
        return list(map(bits, value))
    found = np.asarray(value)
    return [found.shape, str(found.dtype), found.tolist() if found.dtype == object else found.tobytes()]
found = []
for number in range(int(sys.argv[2])):
    path = f"{{sys.argv[1]}}/{{number}}"
    rows, answers = joblib.load(path + ".answers")
    try:
        model = load_restricted(path + ".model")
    except Exception as error:
        found.append(["refused", f"{{type(error).__name__}}: {{error}}"])
        continue
    given = ask(model, rows)
    different = [method for method in answers if method not in given or bits(given[method]) != bits(answers[method])]
    try:
        load_model(path + ".model", Format.JOBLIB)
    except Exception as error:
        found.append(["unserved", f"{{type(error).__name__}}: {{error}}"])
        continue
    found.append(["different", ", ".join(different)] if different else ["equal", ""])
print(json.dumps(found))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the environments, fit, load, compare, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("minors", nargs="*", default=list(RELEASES), metavar="MINOR", help="such as 1.5")
    parser.add_argument("--at", type=Path, help="a directory for the environments; those that are there are used")
    parser.add_argument("--python", help="the interpreter of an environment that exists, for one version")
    given = parser.parse_args(arguments)
    print(f"{'scikit-learn':14}{'fitted':>8}{'loaded':>8}{'served':>8}{'equal':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for minor in given.minors:
            python = given.python or make_environment(given.at or Path(scratch), minor)
            show(minor, compare(python, Path(scratch)))
    return 0


def make_environment(directory: Path, minor: str) -> str:
    """Return the interpreter of an environment with this scikit-learn, made if it is not there."""
    release, python = RELEASES[minor]
    name = f"sk{minor.replace('.', '')}"
    place = directory / name / "bin" / "python"
    if not place.exists():
        directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "serving", "environment", "create", name, "--python", python]
        wanted = ["--with", f"scikit-learn=={release}", "--with", "pandas"]
        variables = {**os.environ, "SERVING_ENVIRONMENTS__PATH": str(directory)}
        subprocess.run([*command, *wanted], check=True, stdout=sys.stderr, env=variables, cwd=run.ROOT)
    return str(place)


def compare(python: str, scratch: Path) -> list[tuple[str, str, str]]:
    """Return for each estimator that could be fitted by `python` its label, a word for what came of it, and more."""
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        labels = _run(python, _FIT, place)
        words = _run(python, _LOAD, place, str(len(labels)))
    return [(label, word, more) for label, (word, more) in zip(labels, words, strict=True)]


def _run(python: str, program: str, *arguments: str) -> Any:
    done = subprocess.run([python, "-B", "-c", program, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(minor: str, found: list[tuple[str, str, str]]) -> None:
    """Print a line of the table, and on stderr what is not equal."""
    words = [word for _, word, _ in found]
    refused, unserved, different = (words.count(word) for word in ("refused", "unserved", "different"))
    loaded = len(words) - refused
    served = loaded - unserved
    print(f"{minor:14}{len(words):8}{loaded:8}{served:8}{served - different:8}", flush=True)
    for label, word, more in found:
        if word != "equal":
            print(f"  {minor} {label}: {word}: {more[:200]}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
