"""What the attributes of known models hold, noted for ``python -m benchmarks.allow_list``; the words are `Kinds`'.

Texts that choose what code runs (a solver, the name of a method) are noted one by one; names of features, classes and
steps may be anything. Which is which was read off what models hold, and is written down here.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from scipy import sparse
from sklearn.base import BaseEstimator

from benchmarks.older_declarations import OLDER, find_declared_texts, list_scorer_names
from serving.host.restricted.attribute_schema import INERT, NATIVE
from serving.host.restricted.fitting_only import StandIn
from serving.host.restricted.pandas_values import VALUES

constraints: Any
try:
    from sklearn.utils import _param_validation as constraints
except ImportError:  # before 1.2
    constraints = None

# attributes whose texts are names of the owner's: of features, classes, categories, steps, words
NAMES = frozenset(
    (
        "_Booster__name_inner_eval",
        "_best_score",
        "_class_map",
        "_class_weight",
        "_classes",
        "_columns",
        "_evals_result",
        "_kwargs",
        "_name_to_fitted_passthrough",
        "_remainder",
        "_requests",
        "_train_data_name",
        "_transformer_to_input_indices",
        "_transformers_feature_names_out",
        "_y",
        "best_score",
        "categorical_features",
        "categories",
        "categories_",
        "class_weight",
        "classes",
        "classes_",
        "coefs_paths_",
        "constant",
        "constant_",
        "drop",
        "drop_idx_",
        "estimators",
        "evals_result_",
        "feature_name",
        "feature_names",
        "feature_names_",
        "feature_names_in_",
        "feature_weights",
        "fill_value",
        "labels",
        "metric_names",
        "missing_values",
        "monotonic_cst",
        "named_estimators_",
        "output_indices_",
        "owner",
        "pandas_categorical",
        "pattern",
        "pos_label",
        "refit",
        "scores_",
        "separator",
        "statistics_",
        "steps",
        "stop_words",
        "stop_words_",
        "token_pattern",
        "transduction_",
        "transformer_list",
        "transformer_weights",
        "transformers",
        "transformers_",
        "vocabulary",
        "vocabulary_",
        "y_",
    )
)
# names that owners note on any estimator; no code chooses by them
LABELS = frozenset(
    {"classes", "classes_", "columns", "feature_names", "feature_names_", "feature_names_in_", "features"}
)
# what only a search looked at, before there was a best one
SEARCHED = frozenset({"param_grid", "param_distributions", "cv_results_", "best_params_"})
DROPPED = frozenset({"memory"})
# texts that are looked into: what they may look like
PATTERNS: Mapping[str, str] = {
    "_sklearn_version": r"/[0-9A-Za-z.+-]{1,40}/",
    "encoding": r"/[A-Za-z0-9_-]{1,40}/",
    # the way from an estimator to its fitted coefficients
    "importance_getter": r"/auto|([A-Za-z][A-Za-z0-9_]*\.){0,5}[A-Za-z][A-Za-z0-9_]*_/",
    "pre_dispatch": r"/all|[0-9.]{1,10}(\*n_jobs)?|n_jobs/",
    "threshold": r"/auto|([0-9.e+-]{1,20} ?\* ?)?(mean|median)/",
    "verbose_feature_names_out": r"/([^{}]|\{transformer_name\}|\{feature_name\}){0,200}/",
}
# keywords for functions: an array among them would be one to write into
KEYWORDS = frozenset({"_kwargs", "kernel_params", "keywords", "kw_args", "inv_kw_args", "pairwise_kernels_kwargs"})
# texts that models may have and the ones fitted here do not, by the name of the attribute
MORE: Mapping[str, tuple[str, ...]] = {
    "_response_method": ("predict_log_proba", "transform"),
    "effective_metric_params_": ("p", "w", "V", "VI"),
    "kernel_params": ("gamma", "degree", "coef0", "length_scale", "alpha", "metric"),
    "kw_args": (
        "a_max",
        "a_min",
        "axis",
        "copy",
        "ddof",
        "decimals",
        "keepdims",
        "max",
        "min",
        "nan",
        "neginf",
        "posinf",
    ),
    "metric_params": ("p", "w", "V", "VI"),
    "pairwise_kernels_kwargs": ("gamma", "degree", "coef0"),
    "stack_method_": ("decision_function",),
    "_sklearn_output_config": ("polars", "pandas", "default", "transform"),
    "termination_condition_": ("max_iter", "no_change", "all_labeled"),
}
MORE_ALIKE = {"inv_kw_args": "kw_args"}
# attributes that hold functions or classes for the same purpose
ALIKE: Mapping[str, str] = {
    "inverse_func": "func",
    "effective_metric_": "metric",
    "pooling_func": "func",
    "_checked_cv_orig": "cv",
}
# what may be chosen by giving a class: how numbers are kept
DTYPES = (
    *(
        f"numpy.{name}"
        for name in ("bool", "bool_", "float16", "float32", "float64", "int8", "int16", "int32", "int64")
    ),
    *(f"numpy.{name}" for name in ("uint8", "uint16", "uint32", "uint64", "number")),
    *(f"builtins.{name}" for name in ("bool", "float", "int", "object")),
)
# texts that any parameter had for a while
_ALWAYS = ("'deprecated'", "'warn'")
_LARGE_GROUP = 5
# what may stand in any attribute
_ANYWHERE = frozenset({"none", "number", "time"})
_NOT_SERVED = frozenset({"tests", "externals", "datasets", "_test_common", "inspection"})
_BY_TEXT = frozenset({"getattr", "hasattr", "attrgetter", "check_is_fitted"})


_CONTAINERS = (list, tuple, set, frozenset, dict, OrderedDict, defaultdict, slice, range)
_WORDS: tuple[tuple[Any, str], ...] = (
    (type(None), "none"),
    ((np.datetime64, np.timedelta64, *VALUES), "time"),
    ((bool, int, float, complex, np.generic), "number"),
    ((bytes, bytearray), "bytes"),
    (np.dtype, "dtype"),
    ((np.random.RandomState, np.random.Generator), "random"),
    (BaseEstimator, "estimator"),
    (tuple(getattr(sparse, name) for name in ("spmatrix", "sparray") if hasattr(sparse, name)), "array"),
)


def _functions() -> tuple[type, ...]:
    dispatchers = tuple({type(np.mean), type(np.linalg.norm)})
    return (type, types.FunctionType, types.BuiltinFunctionType, np.ufunc, *dispatchers)


_INERT = (str, bytes, int, float, np.generic, np.dtype, StandIn, *VALUES)


class AttributeRecorder:
    """Notes what is in the attributes of models; `document` is the part of the list made of it."""

    def __init__(self) -> None:
        self._kinds: dict[type, dict[str, set[str]]] = {}
        self._names: dict[int, set[str]] = {}

    def note(self, model: Any, names: Mapping[int, str]) -> None:
        """Note everything inside of `model`. `names` are the globals its file named, by id."""
        for place, name in names.items():
            self._names.setdefault(place, set()).add(name)
        seen: dict[int, Any] = {}
        waiting = [model]
        while waiting:
            found = waiting.pop()
            if id(found) in seen or isinstance(found, (*_INERT, *_functions())):
                continue
            seen[id(found)] = found
            if isinstance(found, np.ndarray):
                waiting.extend(np.asarray(found).ravel().tolist() if found.dtype.kind == "O" else ())
            elif isinstance(found, dict):
                waiting.extend([*found.keys(), *found.values()])
            elif isinstance(found, (list, tuple, set, frozenset)):
                waiting.extend(found)
            waiting.extend(self._note_attributes(found).values())

    def _note_attributes(self, owner: Any) -> dict[str, Any]:
        kind = type(owner)
        if kind.__module__ in ("builtins", "collections", "numpy.ma", "numpy") or isinstance(owner, np.ndarray):
            return {}
        if kind is partial:
            attributes = {"func": owner.func, "args": owner.args, "keywords": owner.keywords}
        else:
            attributes = getattr(owner, "__dict__", {})
        noted = self._kinds.setdefault(kind, {})
        for name, value in attributes.items():
            self._words(value, noted.setdefault(name, set()), set())
        return {name: value for name, value in attributes.items() if name not in DROPPED}

    def _words(self, value: Any, words: set[str], seen: set[int]) -> None:
        """Add what `value` and everything in it is called."""
        if isinstance(value, StandIn):
            return
        word = self._word(value)
        if word:
            words.add(word)
        if word and not (word.startswith("class:") and isinstance(value, (dict, tuple))):
            return
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            inside: Iterable[Any] = np.asarray(value).ravel().tolist()
        elif isinstance(value, (slice, range)):
            inside = [value.start, value.stop, value.step]
        elif isinstance(value, dict):
            inside = [*value.keys(), *value.values()]
        else:
            inside = value
        for each in inside:
            self._words(each, words, seen)

    def _word(self, value: Any) -> str | None:
        """Return the word for a value, None for one that is a container."""
        if isinstance(value, str):
            return f"'{value}'"
        if isinstance(value, np.ndarray):
            plain = {"O": None, "U": None, "V": "table"}.get(value.dtype.kind, "array")
            return plain if value.size or plain else "array"
        if id(value) in self._names:
            return f"global:{min(self._names[id(value)])}"
        known = next((word for kinds, word in _WORDS if isinstance(value, kinds)), None)
        kind = type(value)
        if known or kind in _CONTAINERS:
            return known
        full = f"{kind.__module__}.{kind.__qualname__}"
        return f"global:{value.__module__}.{value.__name__}" if isinstance(value, _functions()) else f"class:{full}"

    # --- the document -------------------------------------------------------------------------------------------------

    def document(self, nameable: Collection[str]) -> dict[str, Any]:
        """Return groups, classes with their attributes, and the names that classes read.

        Classes that no file names (`nameable`) are those of objects that others make of their state.
        """
        made = [kind for kind in self._kinds if f"{kind.__module__}.{kind.__qualname__}" not in nameable]
        listed = {kind: {} if kind in made else self._reviewed(kind, noted) for kind, noted in self._kinds.items()}
        scorers = {f"'{name}'" for name in list_scorer_names()}
        groups = make_groups(listed.values(), scorers)
        classes = {
            f"{kind.__module__}.{kind.__qualname__}": {
                name: write_with_groups(name, words, groups) for name, words in sorted(attributes.items())
            }
            for kind, attributes in listed.items()
        }
        return {
            "groups": {name: sorted(words) for name, words in sorted(groups.items())},
            "classes": dict(sorted(classes.items())),
            "labels": sorted(LABELS),
            "made": sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in made),
            "names": sorted(_names_asked_for()),
        }

    def _reviewed(self, kind: type, noted: Mapping[str, set[str]]) -> dict[str, set[str]]:
        """Return what the attributes of a class may hold, those left out that only ever hold numbers."""
        declared = _declarations(kind)
        reviewed = {}
        for name in {*noted, *declared}:
            words = set(noted.get(name, ())) | declared.get(name, set())
            if words:
                reviewed[name] = self._closed(name, words, noted, declared)
            if words and kind.__module__.startswith(NATIVE):
                reviewed[name] = {word for word in words if word[0] != "'"} | {"text"}
        if "estimator" in noted and "class:estimator" not in noted["estimator"]:
            for older in ("base_estimator", "base_estimator_"):
                reviewed.setdefault(older, set()).add("estimator")
        return {
            name: _with_arrays(name, words) - _ANYWHERE
            for name, words in reviewed.items()
            if words - INERT.plain - _ANYWHERE - set(_ALWAYS) or _shadows(kind, name)
        }

    def _closed(
        self, name: str, words: set[str], noted: Mapping[str, set[str]], declared: Mapping[str, set[str]]
    ) -> set[str]:
        """Return the words for one attribute with its texts as they were reviewed."""
        if name in DROPPED:
            return {"dropped"}
        if name in SEARCHED:
            return {"data"}
        others = {word for word in words if word[0] != "'"}
        if name in PATTERNS:
            return others | {PATTERNS[name]}
        if "text" in words or (name in NAMES and len(others) < len(words)):
            return others | {"text"}
        texts = words - others
        # a fitted attribute says what its parameter said, or what that came to
        for parameter in (name.strip("_"), name.removeprefix("effective_").strip("_")):
            if parameter != name and parameter in declared and parameter not in NAMES:
                texts |= {word for word in noted.get(parameter, ()) if word[0] == "'"}
                texts |= {word for word in declared[parameter] if word[0] == "'"}
        if texts or name in MORE or name in MORE_ALIKE:
            more = (*MORE.get(MORE_ALIKE.get(name, name), ()), *OLDER.get(name, ()))
            texts |= {f"'{text}'" for text in more} | set(_ALWAYS)
        return others | texts


def _with_arrays(name: str, words: set[str]) -> set[str]:
    """Return the words with that for arrays, but where an estimator or a function belongs, and among keywords."""
    is_other = any(word == "estimator" or word.startswith(("class:", "global:")) for word in words)
    return words if is_other or name in KEYWORDS else words | {"array"}


def _declarations(kind: type) -> dict[str, set[str]]:
    """Return by the name of a parameter the words for what scikit-learn says it may be."""
    if constraints is None and kind.__module__.startswith("sklearn.") and issubclass(kind, BaseEstimator):
        return {name: {f"'{text}'" for text in texts} for name, texts in find_declared_texts(kind).items()}
    declared = getattr(kind, "_parameter_constraints", {})
    return {name: _declared(alternatives, name) for name, alternatives in declared.items()}


def _declared(alternatives: Any, name: str) -> set[str]:
    """Return the words for what scikit-learn's constraints say of a parameter."""
    words: set[str] = set()
    for alternative in alternatives if not isinstance(alternatives, str) else ():
        inner = alternative.constraint if isinstance(alternative, constraints.Hidden) else alternative
        if isinstance(inner, constraints.Options):
            words |= {f"'{option}'" if isinstance(option, str) else "number" for option in inner.options}
        elif inner is str and name not in PATTERNS:
            words.add("text")
        elif inner is None:
            words.add("none")
        elif isinstance(inner, constraints.Interval) or (isinstance(inner, str) and inner in ("boolean", "verbose")):
            words.add("number")
        elif isinstance(inner, str) and inner == "random_state":
            words |= {"number", "random", "none"}
        elif (isinstance(inner, str) and inner in ("array-like", "sparse matrix", "cv_object")) or inner in (
            np.ndarray,
            list,
            tuple,
        ):
            words |= {"number", "array"}
        elif inner is dict:  # of keywords: an array among them would be one to write into
            words.add("number")
        elif type(inner).__name__ == "MissingValues":
            words |= {"number", "none", "text"}
    return words


def _shadows(kind: type, name: str) -> bool:
    found = inspect.getattr_static(kind, name, None)
    return found is not None and not inspect.isdatadescriptor(found)


def make_groups(listed: Iterable[Mapping[str, set[str]]], scorers: set[str]) -> dict[str, set[str]]:
    """Return by the name of an attribute the objects and functions that any class has there; and names of scorers."""
    groups: dict[str, set[str]] = {}
    for attributes in listed:
        for name, words in attributes.items():
            found = {word for word in words if word.startswith(("class:", "global:"))}
            groups.setdefault(ALIKE.get(name, name), set()).update(found)
    groups["metric"] |= {f"class:sklearn.metrics._dist_metrics.{name}" for name in _distances()}
    groups["dtype"] = groups["dtype_include"] = {f"global:{name}" for name in DTYPES}
    return {name: words for name, words in groups.items() if len(words) >= _LARGE_GROUP} | {"scorers": scorers}


def _distances() -> list[str]:
    from sklearn.metrics import _dist_metrics

    return [name for name in vars(_dist_metrics) if name.endswith(("Distance", "Distance64", "Distance32"))]


def write_with_groups(name: str, words: set[str], groups: Mapping[str, set[str]]) -> list[str]:
    """Return the words in order, with what any class has in the attribute of this name where one has any of it."""
    whole = set(words)
    if whole & groups["scorers"] and name == "scoring":
        whole = (whole - groups["scorers"]) | {"@scorers"}
    group = ALIKE.get(name, name)
    of_name = groups.get(group, set())
    if whole & of_name:
        whole = (whole - of_name) | {f"@{group}"}
    return sorted(whole)


def _names_asked_for() -> set[str]:
    """Return the names of attributes that scikit-learn's code asks other objects than `self` and modules for."""
    found: set[str] = set()
    for path in Path(sklearn.__file__).parent.rglob("*.py"):
        if _NOT_SERVED.isdisjoint(path.parts):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            modules = {
                each.asname or each.name
                for node in ast.walk(tree)
                if isinstance(node, (ast.Import, ast.ImportFrom))
                for each in node.names
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and not (
                    isinstance(node.value, ast.Name) and node.value.id in {"self", "cls", *modules}
                ):
                    found.add(node.attr)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _BY_TEXT:
                    found |= {each.value for argument in node.args for each in ast.walk(argument) if _is_name(each)}
    return found


def _is_name(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+", node.value) is not None
    )
