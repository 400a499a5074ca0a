"""Which estimators are answered compiled, tried on all of scikit-learn's: ``python -m benchmarks.engines``.

Compiles each one as a host does and writes docs/engines.md. Blocks for some minutes; run it alone on the machine.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import threadpoolctl
import xgboost
from sklearn import ensemble
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.feature_extraction import text
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import all_estimators

from benchmarks import circumstances, run
from serving.compiling import converters
from serving.compiling.compile_model import compile_in_worker, compile_model
from serving.compiling.converters.converter_registry import CONVERTERS, TRANSFORMS
from serving.compiling.converters.fallback import MEASURED
from serving.compiling.forked_worker import ForkedWorker
from serving.domain.compiled_form import Compilation
from serving.domain.errors import ServingError
from serving.host.nested_estimators import limit_to_one_thread, walk_nested_estimators
from serving.host.signature_of_estimator import examine_estimator
from serving.wire.evaluation import CompileRequest
from tests.unit.host.test_every_estimator import LEFT_OUT, NO_FEATURES, NOTHING_TO_OFFER, fit_estimator

Made = tuple[str, str, Callable[[], Any]]
PAGE = run.ROOT / "docs" / "engines.md"
LIBRARIES = ("scikit-learn", "onnxruntime", "skl2onnx", "numpy")
NO_TABLES = {"DictVectorizer", "LabelBinarizer", "LabelEncoder", "MultiLabelBinarizer", "FrozenEstimator", "TSNE"}

INTRODUCTION = """\
When a version is evaluated, its host tries to **compile** it: it converts the fitted estimator, with all its parts, to
one ONNX graph in float64. If the graph is proved, the server answers with it in its own process, without a host and
without scikit-learn. Most parts are converted by converters of this project (`serving/compiling/converters`), which
compute what scikit-learn computes, step by step. A few are converted by skl2onnx, where measurements showed the same
answers.

Every graph has to be proved. Estimator and graph answer the same rows with all methods. These rows are golden examples
and rows near them; rows like those of training; rows far outside; rows that the model remembers, such as centers, means
and support vectors, and rows near these; rows at every kind of split of every tree (on the threshold, and one ulp of
float64 and of float32 to each side); all categories and unknown ones; and missing values in every pattern that the
signature allows. Then come numbers of every size. There are **tiny** ones, from 5e-324 on, zeros of both signs, and
both sides of every branch that scikit-learn takes there (it treats a norm below 10 eps as 1). There are **enormous**
ones, from 1e9 to the ends of float32 and float64, alone and mixed in one row. Labels must be equal on **all** rows.
Other numbers must be within `engine.compile_tolerance` (1e-5, relative), ten times closer where they are enormous;
dtypes and shapes must be equal. The graph must also be faster for one row, and not clearly slower for 256.

The **guard** keeps that true in service. The server refuses what the estimator refuses (unknown categories, negative
numbers), and numbers beyond the largest ones that were proved. That limit is lower where the estimator's own answers
depend on the last digits of its input (angles of 1e10, distances between neighbours at 1e14), or on the order of a sum
that overflows. `python -m benchmarks.magnitudes` asks every estimator and option 2,000 adversarial rows within its
guard, which no proof has seen. All answers are equal, except a few in a million: sums of enormous numbers that cancel
out, where the estimator's own answers differ as much from one ulp to the next.

Everything else **stays in its host** and is answered by the estimator itself, which is just as correct: code that is
not from scikit-learn, XGBoost or LightGBM; features that take values of any type; estimators that iterate for each
answer (`NMF`, probabilities of `SVC`, also for two classes); text that is split into words; estimators without a
converter; and graphs that are not faster. The table says which, and why; `GET /models/{name}/versions/{version}` says
it for every version, with its proof. An `.onnx` file is a graph already: it is proved in the same way, but need not be
faster. It stays in its host if it takes integers, needs files beside it, branches, loops or has operators of other
domains. With several workers, a form whose copies have no room in `engine.workers_mb` stays in its host, too
([operations](operations.md#what-memory))."""

FITTING = """\
Estimators are fitted as scikit-learn's own tests do, on 60 rows of 6 features and with settings for quick tests
(forests of 5 trees); those in the last groups are fitted on usual data. Times ("µs") are medians for one row with the
default method, without HTTP. An estimator that is not faster here may be faster with another size: the server measures
the model that it serves. The largest difference is relative to the number, or to 1 where that is larger, as the
tolerance is. It is the largest over all rows, also those with numbers up to 1.7e308."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One estimator and what became of it."""

    group: str
    name: str
    methods: tuple[str, ...]
    drawn_by: str
    verdict: Compilation


def main() -> int:
    """Try all, telling each on a line of its own, and write the page."""
    warnings.simplefilter("ignore")
    threadpoolctl.threadpool_limits(1)  # as hosts do: a pool of threads does not survive the fork
    where = circumstances.describe()
    tried, unserved = [], []
    for group, name, make in _all():
        try:
            one = _try(group, name, make())
        except ServingError as error:
            unserved.append(name)
            print(f"{name}: not served ({error})", flush=True)
            continue
        tried.append(one)
        became = "compiled" if one.verdict.engine else one.verdict.reason
        print(f"{group}.{name}: {became} ({one.verdict.seconds:.1f} s)", flush=True)
    unserved += sorted(NOTHING_TO_OFFER | NO_FEATURES | NO_TABLES)
    PAGE.write_text(_page(where, tried, sorted(unserved)))
    print(f"wrote {PAGE.relative_to(run.ROOT)}")
    return 0


def _all() -> Iterator[Made]:
    left_out = {*LEFT_OUT, *NOTHING_TO_OFFER, *NO_FEATURES, "HashingVectorizer"} - {"SequentialFeatureSelector"}
    ours = [
        (".".join(kind.__module__.split(".")[:2]), name, lambda name=name: fit_estimator(name)[0])
        for name, kind in all_estimators()
        if name not in left_out
    ]
    vectorizers = [
        ("sklearn.feature_extraction", name, partial(getattr(text, name)().fit, ["the cat sat", "a dog sat down"]))
        for name in ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer")
    ]
    yield from sorted([*ours, *vectorizers], key=lambda each: each[:2])
    yield from _boosters()
    yield from _pipelines()


def _boosters() -> Iterator[Made]:
    rows, answers = load_breast_cancer(return_X_y=True)
    for name in ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker"):
        queries = {"qid": np.arange(len(rows)) // 40} if name == "XGBRanker" else {}
        yield "xgboost", name, partial(getattr(xgboost, name)().fit, rows, answers, **queries)
    for name in ("LGBMClassifier", "LGBMRegressor", "LGBMRanker"):
        groups = {"group": [40] * 14 + [len(rows) - 560]} if name == "LGBMRanker" else {}
        yield "lightgbm", name, partial(getattr(lightgbm, name)(verbose=-1).fit, rows, answers, **groups)


def _pipelines() -> Iterator[Made]:
    rows, answers = load_breast_cancer(return_X_y=True)
    forest = ensemble.RandomForestClassifier(100, random_state=0)
    logistic = make_pipeline(StandardScaler(), LogisticRegression())
    both = [
        ("logistic", logistic),
        ("boosting", ensemble.HistGradientBoostingClassifier(random_state=0)),
        ("forest", forest),
    ]
    kinds = {
        "StandardScaler, LogisticRegression": logistic,
        "RandomForestClassifier, 100 trees": forest,
        "HistGradientBoostingClassifier": ensemble.HistGradientBoostingClassifier(random_state=0),
        "VotingClassifier (soft) of 3": ensemble.VotingClassifier(both, voting="soft"),
        "StackingClassifier of 3": ensemble.StackingClassifier(both, cv=2),
        "CalibratedClassifierCV of a forest": CalibratedClassifierCV(forest, cv=2),
        "GridSearchCV of the logistic pipeline": GridSearchCV(logistic, {"logisticregression__C": [0.1, 1]}, cv=2),
    }
    for name, estimator in kinds.items():
        yield "pipelines", name, partial(estimator.fit, rows, answers)
    table, labels = _table_of_all_kinds()
    branches = (
        (make_pipeline(SimpleImputer(), StandardScaler()), ["size", "age"]),
        (OneHotEncoder(handle_unknown="ignore"), ["kind", "known"]),
    )
    columns = make_column_transformer(*branches, remainder="passthrough")
    for last in (LogisticRegression(), forest):
        name = f"ColumnTransformer (text, numbers and bools with null), {type(last).__name__}"
        yield "pipelines", name, partial(make_pipeline(columns, last).fit, table, labels)


def _table_of_all_kinds() -> tuple[pd.DataFrame, list[str]]:
    random = np.random.default_rng(0)
    size = random.normal(size=400)
    columns = {
        "size": np.where(random.random(400) < 0.1, np.nan, size),
        "age": random.integers(18, 80, 400),
        "kind": random.choice(np.array(["a", "b", None], dtype=object), 400),
        "known": random.choice(np.array([True, False, None], dtype=object), 400),
        "paid": size > 1,
    }
    return pd.DataFrame(columns), np.where(size + random.normal(size=400) > 0.5, "yes", "no").tolist()


def _try(group: str, name: str, estimator: Any) -> Tried:
    limit_to_one_thread(estimator)
    model = examine_estimator(estimator)
    request = CompileRequest()
    verdict, _ = compile_in_worker(ForkedWorker(lambda: compile_model(model, request, [])), model, request)
    return Tried(group, name, model.signature.methods, _drawn_by(estimator) if verdict.engine else "", verdict)


def _drawn_by(estimator: Any) -> str:
    """Say whose converters drew the parts of what was compiled."""
    assert converters.__all__  # importing the package registered them
    names = {type(part).__name__ for part in walk_nested_estimators(estimator)}
    theirs = sorted(name for name in names & MEASURED if name not in CONVERTERS and name not in TRANSFORMS)
    both = f"ours, skl2onnx ({', '.join(theirs)})" if theirs else "ours"
    return "skl2onnx" if type(estimator).__name__ in theirs else both


def _page(where: dict[str, Any], tried: list[Tried], unserved: list[str]) -> str:
    machine = where["machine"]
    versions = ", ".join(f"{name} {where['versions'][name]}" for name in LIBRARIES)
    where_and_when = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}; {where['date']}; "
        f"Python {where['versions']['python']}, {versions}; "
        f"others kept the machine busy {where['busy_before_percent']:g}% before."
    )
    paragraphs = ["# Engines", "Written by `python -m benchmarks.engines`; do not edit it by hand.", INTRODUCTION]
    tables = ["## Counts", *_counts(tried, unserved), "## Estimators", "\n".join(_table(tried))]
    return "\n\n".join([*paragraphs, where_and_when, FITTING, *tables]) + "\n"


def _counts(tried: list[Tried], unserved: list[str]) -> list[str]:
    kinds = {"scikit-learn": "sklearn", "XGBoost and LightGBM": ("xgboost", "lightgbm"), "pipelines": "pipelines"}
    lines = ["| | tried | compiled | not faster | no compiled form | other reasons |", "|---" * 6 + "|"]
    for kind, groups in kinds.items():
        members = [one for one in tried if one.group.startswith(groups)]
        reasons = [one.verdict.reason for one in members if one.verdict.engine is None]
        slow = sum(reason.startswith("not faster") for reason in reasons)
        formless = sum("compiled form" in reason for reason in reasons)
        left = len(reasons) - slow - formless
        lines.append(f"| {kind} | {len(members)} | {len(members) - len(reasons)} | {slow} | {formless} | {left} |")
    rows = sum(each.rows for one in tried for each in one.verdict.rows)
    said = (
        f"Answered alike by both: {rows:,} rows. Not served at all, because they have no method that answers new rows, "
        f"or take no table of rows: {', '.join(unserved)}."
    )
    return ["\n".join(lines), said]


def _table(tried: list[Tried]) -> list[str]:
    head = "| estimator | answered by | methods | rows proved | largest difference | estimator µs | graph µs | times |"
    lines, group = [head, "|---|---|---|--:|--:|--:|--:|--:|"], ""
    for one in tried:
        if one.group != group:
            group = one.group
            lines.append(f"| **{group}** | | | | | | | |")
        lines.append("| " + " | ".join(_cells(one)) + " |")
    return lines


def _cells(one: Tried) -> list[str]:
    verdict, methods = one.verdict, ", ".join(one.methods)
    if verdict.engine is None or verdict.row_seconds is None or verdict.speed_up is None:
        return [one.name, f"its host: {verdict.reason}".replace("|", "\\|"), methods, "", "", "", "", ""]
    own, graph = (f"{seconds * 1e6:.{0 if seconds > 2e-5 else 1}f}" for seconds in verdict.row_seconds)
    rows = sum(each.rows for each in verdict.rows)
    figures = [f"{rows:,}", f"{verdict.largest_difference:.1g}", own, graph, f"{verdict.speed_up:.3g}"]
    return [one.name, f"graph, {one.drawn_by}", methods, *figures]


if __name__ == "__main__":
    sys.exit(main())
