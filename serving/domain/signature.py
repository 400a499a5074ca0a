"""The input/output contract of a model."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Union

from serving.data_model import BaseModel, ConfigDict, Field

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples")
Method = Literal["predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples"]
Label = Union[bool, int, float, str, None]

MAX_FEATURES = 100_000
MAX_LABELS = 250_000
MAX_NAME_CHARACTERS = 1_000
MAX_TEXT_CHARACTERS = 6_000_000  # in all names and labels together
MAX_OUTPUTS = 1 << 25


class Dtype(StrEnum):
    """The type of one feature in JSON."""

    NUMBER = "number"
    STRING = "string"
    BOOL = "bool"
    ANY = "any"


class Container(StrEnum):
    """What the estimator was fitted on, and so what a batch is converted to."""

    ARRAY = "array"
    DATAFRAME = "dataframe"
    TEXTS = "texts"
    OBJECTS = "objects"


class ModelKind(StrEnum):
    """What sort of estimator answers."""

    CLASSIFIER = "classifier"
    REGRESSOR = "regressor"
    CLUSTERER = "clusterer"
    OUTLIER_DETECTOR = "outlier_detector"
    TRANSFORMER = "transformer"
    OTHER = "other"


class Feature(BaseModel):
    """One input column. `nullable` says that JSON ``null`` stands for a missing value.

    `is_used` is False for a feature that the model drops: an object may leave it out, and its value is ignored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: Dtype = Dtype.NUMBER
    nullable: bool = False
    is_used: bool = True

    @property
    def is_number(self) -> bool:
        """True when a batch has float64 here: for numbers, and NaN for unused features."""
        return self.dtype is Dtype.NUMBER or not self.is_used


class Signature(BaseModel):
    """Features in the order of array rows, methods with the default one first, and the outputs.

    `classes` holds one tuple of labels per output for classifiers (one output: one tuple), else None.
    `outputs` is the number of values ``predict`` gives per row.
    `is_named` is True when the estimator was fitted with feature names; otherwise they are ``x0, x1, ...``. `is_typed`
    is True when the user's own code gets tables: columns then have the dtypes that a request sent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: tuple[Feature, ...]
    methods: tuple[Method, ...] = Field(min_length=1)
    container: Container = Container.ARRAY
    kind: ModelKind = ModelKind.OTHER
    is_named: bool = False
    is_typed: bool = False
    outputs: int = 1
    classes: tuple[tuple[Label, ...], ...] | None = None

    @property
    def default_method(self) -> Method:
        """The method used when a request names none."""
        return self.methods[0]


def why_not_sound(signature: Signature) -> str | None:
    """Say why no version can be served under `signature`, None when one can.

    A host asks before it describes a candidate, and the server asks for every description that a host sends. Names and
    labels may hold any characters and occur more than once: some tables have such columns.
    """
    classes, methods = signature.classes or (), signature.methods
    features, labels = len(signature.features), sum(map(len, classes)) + len(classes)
    names = [len(feature.name) for feature in signature.features]
    longest = max(names, default=0)
    text = sum(names) + sum(len(label) for each in classes for label in each if isinstance(label, str))
    rules = (
        (features <= MAX_FEATURES, f"{features} features, at most {MAX_FEATURES}: save it with its vectorizer"),
        (labels <= MAX_LABELS, f"{labels} class labels, at most {MAX_LABELS}"),
        (longest <= MAX_NAME_CHARACTERS, f"a feature name of {longest} characters, at most {MAX_NAME_CHARACTERS}"),
        (text <= MAX_TEXT_CHARACTERS, f"names and labels of {text} characters, at most {MAX_TEXT_CHARACTERS}"),
        (len(set(methods)) == len(methods), "a method that is offered twice"),
        (0 <= signature.outputs <= MAX_OUTPUTS, f"{signature.outputs} outputs per row, at most {MAX_OUTPUTS}"),
    )
    return next((f"it has {problem}" for is_kept, problem in rules if not is_kept), None)


def incompatibilities(old: Signature, new: Signature) -> list[str]:
    """Return the reasons, one sentence each, why a client of `old` could break on `new`; empty when it cannot.

    The new version may accept more (nulls, any dtype, further methods). It must not require more or answer differently.
    """
    found = []
    old_names = [feature.name for feature in old.features]
    new_names = [feature.name for feature in new.features]
    if old_names != new_names:
        found.append(_describe_feature_change(old_names, new_names))
    for before, after in zip(old.features, new.features, strict=False):
        if before.name != after.name:
            continue
        if not after.is_used:
            continue
        if after.dtype not in (before.dtype, Dtype.ANY):
            found.append(f"feature '{before.name}' was {before.dtype} and is {after.dtype}")
        if before.nullable and not after.nullable:
            found.append(f"feature '{before.name}' no longer takes null")
    missing = [method for method in old.methods if method not in new.methods]
    if missing:
        found.append(f"no longer offers {', '.join(missing)}")
    if old.default_method != new.default_method:
        found.append(f"default method was {old.default_method} and is {new.default_method}")
    if old.kind != new.kind:
        found.append(f"was a {old.kind} and is a {new.kind}")
    if old.outputs != new.outputs:
        found.append(f"gave {old.outputs} outputs per row and gives {new.outputs}")
    if old.classes != new.classes:
        found.append("the class labels or their order differ")
    return found


def _describe_feature_change(old: list[str], new: list[str]) -> str:
    if len(old) != len(new):
        head = f"takes {len(new)} features, the active version takes {len(old)}"
    elif sorted(old) == sorted(new):
        return "the same features in another order"
    else:
        head = "feature names differ"
    before, after = set(old), set(new)
    added = [name for name in new if name not in before][:3]
    gone = [name for name in old if name not in after][:3]
    parts = [f"new: {', '.join(added)}"] if added else []
    parts += [f"gone: {', '.join(gone)}"] if gone else []
    return head + (f" ({'; '.join(parts)})" if parts else "")
