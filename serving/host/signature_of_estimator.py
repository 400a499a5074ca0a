"""Derives the signature of an estimator from its fitted attributes and from its answers to made-up rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from sklearn.base import is_classifier, is_outlier_detector, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from serving.domain.mlmodel import NamedColumn
from serving.domain.signature import MAX_FEATURES, METHODS, Container, Dtype, Feature, Method, ModelKind, Signature
from serving.host.boosters import LIGHTGBM, library_of
from serving.host.estimator_model import EstimatorModel
from serving.host.example_rows import describe_columns, make_column_names, note_examples
from serving.host.field_packages import count_features, find_kept_rows
from serving.host.foreign_files import advise_on_parts
from serving.host.input_columns import (
    InputColumn,
    find_first_parts,
    find_object_vectorizer,
    find_text_vectorizer,
    learn_columns,
)
from serving.host.input_guessing import guess_input_values
from serving.host.model import LoadRefused, NotAnEstimator
from serving.host.older_sklearn import is_clusterer
from serving.host.output_tensors import to_plain_value
from serving.host.probing import count_outputs, probe_signature
from serving.wire.compatibility import find_disagreements

_KINDS: tuple[tuple[Callable[[Any], bool], ModelKind], ...] = (
    (is_classifier, ModelKind.CLASSIFIER),
    (is_regressor, ModelKind.REGRESSOR),
    (is_clusterer, ModelKind.CLUSTERER),
    (is_outlier_detector, ModelKind.OUTLIER_DETECTOR),
)


def signature_of(estimator: Any, X: Any = None) -> Signature:
    """Return the signature of a fitted estimator.

    `X` is a sample of rows as given to ``fit`` (DataFrame, array, sparse matrix, list of texts): with it, dtypes are
    read from the data and not guessed. Runs the estimator on a few made-up rows, for example to find out which features
    take null, and blocks meanwhile. Raises LoadRefused when the object is not a fitted estimator or cannot be served.
    """
    return examine_estimator(estimator, X=X).signature


def examine_estimator(
    estimator: Any,
    *,
    declared: Signature | None = None,
    named: Sequence[NamedColumn] = (),
    X: Any = None,
    trained_with: Mapping[str, str] | None = None,
) -> EstimatorModel:
    """Return `estimator` as a model with its signature; see `signature_of`.

    `declared` is the publisher's signature. If it agrees with the estimator it is used as it is, and nulls are not
    tried; if not, the derived signature is used, and the contract gate reports the difference. `named` columns give
    names to an estimator that was fitted without names, and dtypes that the estimator does not know. An estimator that
    does not know its features, or reports none, gets those of `declared`, or else those of `X`.
    """
    methods = _list_methods(estimator)
    _require_fitted(estimator)
    if X is None and declared is None:
        X = find_kept_rows(estimator)
    signature = _set_names(_derive_signature(estimator, methods, declared, X), named)
    names = [feature.name for feature in signature.features] if signature.is_named else None
    columns = _learn_columns(estimator, names, len(signature.features))
    if X is not None:
        note_examples(columns, X)
    _complete_dtypes(columns, signature, named)
    model = EstimatorModel(estimator, _set_dtypes(signature, columns), columns, trained_with)
    is_typed = model.has_own_code and signature.container is Container.DATAFRAME
    model = model.with_signature(model.signature.model_copy(update={"is_typed": is_typed}))
    if declared is not None:
        tried = model.with_signature(declared.model_copy(update={"methods": methods}))
        outputs = count_outputs(tried) if len(declared.features) == len(columns) else None
        own = model.signature.model_copy(update={"outputs": declared.outputs if outputs is None else outputs})
        if not find_disagreements(declared, own):
            if declared.is_typed != is_typed:
                declared = declared.model_copy(update={"is_typed": is_typed})
            answering = guess_input_values(tried) if outputs is None else model
            return answering.with_signature(declared)
    return probe_signature(model)


# --- is it a fitted estimator -----------------------------------------------------------------------------------------


def _list_methods(estimator: Any) -> tuple[Method, ...]:
    if isinstance(estimator, type):
        raise NotAnEstimator(f"the class {estimator.__name__} itself, not a fitted estimator")
    if isinstance(estimator, dict):  # also a Bunch, whose items are attributes: these could be any function
        keys = ", ".join(repr(key) for key in list(estimator)[:3])
        raise NotAnEstimator(f"a dict (keys {keys}), not an estimator: {advise_on_parts(dict.values(estimator))}")
    found = cast(tuple[Method, ...], tuple(method for method in METHODS if _has_method(estimator, method)))
    if hasattr(estimator, "predict") or (found and hasattr(estimator, "fit")):
        return found
    name = type(estimator).__name__
    if isinstance(estimator, (list, tuple)) and any(hasattr(part, "predict") for part in estimator):
        raise NotAnEstimator(f"a {name}, not an estimator: {advise_on_parts(estimator)}")
    if hasattr(estimator, "fit"):
        hint = "; it can only label the rows it was fitted on" if hasattr(estimator, "fit_predict") else ""
        raise LoadRefused(f"{name} offers none of {', '.join(METHODS)}{hint}")
    raise NotAnEstimator(f"an object of type {name}, not an estimator")


def _has_method(estimator: Any, method: str) -> bool:
    try:
        return callable(getattr(estimator, method, None))
    except Exception:  # noqa: BLE001  (a property may raise anything)
        return False


def _require_fitted(estimator: Any) -> None:
    if not hasattr(estimator, "fit"):
        return  # scikit-learn would put its repr into an error and import modules for that, which ends a watched host
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise LoadRefused(f"{type(estimator).__name__} is not fitted: call fit before saving it") from None
    except Exception:  # noqa: BLE001  (not an estimator of scikit-learn; whether it is fitted shows when it answers)
        return


# --- its inputs and outputs -------------------------------------------------------------------------------------------


def _derive_signature(estimator: Any, methods: tuple[Method, ...], declared: Signature | None, X: Any) -> Signature:
    kind = _find_kind(estimator, methods)
    classes = _list_classes(estimator) if kind is ModelKind.CLASSIFIER else None
    container, names = _find_input_columns(estimator, declared, X)
    return Signature(
        features=tuple(Feature(name=name) for name in names),
        methods=methods,
        container=container,
        kind=kind,
        is_named=container is Container.DATAFRAME,
        outputs=len(classes) if classes else 1,
        classes=classes,
    )


def _set_names(signature: Signature, named: Sequence[NamedColumn]) -> Signature:
    """Use the names of `named` columns, all or none, where the estimator has no names of its own."""
    names = dict.fromkeys(column.name for column in named)
    if signature.container is not Container.ARRAY or len(names) != len(signature.features):
        return signature
    return signature.model_copy(update={"features": tuple(Feature(name=name) for name in names)})


def _complete_dtypes(columns: Sequence[InputColumn], signature: Signature, named: Sequence[NamedColumn]) -> None:
    """Note the dtypes of `named` in columns of a data frame: unknown ones, and bools, which look like numbers."""
    if signature.container is not Container.DATAFRAME:
        return
    dtypes = {column.name: column.dtype for column in named}
    for column, feature in zip(columns, signature.features, strict=True):
        dtype = dtypes.get(feature.name)
        if column.dtype is None or (column.dtype is Dtype.NUMBER and dtype is Dtype.BOOL):
            column.dtype = dtype


def _find_input_columns(estimator: Any, declared: Signature | None, X: Any) -> tuple[Container, list[str]]:
    if find_text_vectorizer(estimator) is not None:
        return Container.TEXTS, ["text"]
    if find_object_vectorizer(estimator) not in (None, estimator):  # a vectorizer alone is not a model
        return Container.OBJECTS, ["object"]
    names, count = _find_names(estimator, declared)
    if count is None and hasattr(estimator, "X_thresholds_"):
        count = 1  # isotonic regression
    if not count and declared is None and X is None:
        count = _find_count(estimator)
    if not count and declared is not None:
        return declared.container, [feature.name for feature in declared.features]
    if not count and X is not None:
        container, names = describe_columns(X)
        count = len(names)
    elif names is not None:
        container, names = Container.DATAFRAME, [str(name) for name in names]
    else:
        container, names = Container.ARRAY, make_column_names(count or 0)
    if not count:
        raise LoadRefused(
            f"{type(estimator).__name__} does not say how many features it takes (no n_features_in_): "
            "publish it with serving.publish(..., X=rows), whose manifest.json says so"
        )
    if count > MAX_FEATURES:
        raise LoadRefused(f"{count} features, at most {MAX_FEATURES} can be served: save it with its vectorizer")
    return container, names


def _find_names(estimator: Any, declared: Signature | None) -> tuple[list[Any] | None, int | None]:
    """Return the names of the columns, None for an array, and their number; None or 0 where it is not known."""
    names, count = _find_known(estimator, "feature_names_in_"), _find_known(estimator, "n_features_in_")
    if names is not None and list(names) == list(range(len(names))):
        return None, len(names)  # category_encoders gives the columns of an array such names
    if names is None:
        names = _find_booster_names(estimator)
        if declared is not None and not count and declared.container is Container.ARRAY and names is not None:
            names = names if len(names) != len(declared.features) else None  # it takes rows without names as well
    return names, len(names) if names is not None else count


def _find_booster_names(estimator: Any) -> list[str] | None:
    """Return the column names that CatBoost, or LightGBM before 4.5, keeps in an attribute of its own.

    None for the names that both give to the columns of an array.
    """
    if library_of(estimator) == LIGHTGBM:
        names = getattr(estimator, "feature_name_", None)
        if isinstance(names, list) and names != [f"Column_{place}" for place in range(len(names))]:
            return names
    if type(estimator).__module__.partition(".")[0] == "catboost":
        names = getattr(estimator, "feature_names_", None)
        if isinstance(names, list) and names and names != [str(place) for place in range(len(names))]:
            return names
    return next(
        (found for part in find_first_parts(estimator) if (found := _find_booster_names(part)) is not None), None
    )


def _find_count(estimator: Any) -> int | None:
    """Return how many columns the first part says that it takes which gets the same rows: see `count_features`."""
    count = count_features(estimator)
    return count if count is not None else next(filter(None, map(_find_count, find_first_parts(estimator))), None)


def _find_known(estimator: Any, attribute: str) -> Any:
    """Return a fitted attribute of `estimator` or of the first part inside it that gets the same rows."""
    value = getattr(estimator, attribute, None)
    if value is not None:
        return value
    return next(
        (found for part in find_first_parts(estimator) if (found := _find_known(part, attribute)) is not None), None
    )


def _find_kind(estimator: Any, methods: Sequence[str]) -> ModelKind:
    for is_kind, kind in _KINDS:
        try:
            if is_kind(estimator):
                return kind
        except Exception:  # noqa: BLE001  (an estimator without scikit-learn's tags)
            break
    if hasattr(estimator, "classes_"):
        return ModelKind.CLASSIFIER
    return ModelKind.TRANSFORMER if methods[0] == "transform" else ModelKind.OTHER


def _list_classes(estimator: Any) -> tuple[tuple[Any, ...], ...] | None:
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, np.ndarray):
        return (tuple(to_plain_value(classes)),)
    if isinstance(classes, (list, tuple)) and classes:
        has_several_outputs = all(isinstance(labels, np.ndarray) for labels in classes)
        return tuple(tuple(to_plain_value(labels)) for labels in (classes if has_several_outputs else [classes]))
    return None


def _learn_columns(estimator: Any, names: list[str] | None, count: int) -> list[InputColumn]:
    try:
        return learn_columns(estimator, names, count)
    except Exception:  # noqa: BLE001  (a foreign estimator may have attributes of any type; then nothing is known)
        return [InputColumn(name) for name in names] if names else [InputColumn() for _ in range(count)]


def _set_dtypes(signature: Signature, columns: Sequence[InputColumn]) -> Signature:
    features = tuple(
        feature.model_copy(
            update={"dtype": column.dtype or Dtype.NUMBER, "is_used": column.is_used, "nullable": not column.is_used}
        )
        for feature, column in zip(signature.features, columns, strict=True)
    )
    return signature.model_copy(update={"features": features})
