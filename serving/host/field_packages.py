"""What models of CatBoost, category_encoders and statsmodels tell of their columns, each in attributes of its own.

None of these packages has to be installed: their classes are known by name. Fitted attributes are read and simple
accessors called. A file with such a model was loaded because the operator trusts it, so its code may run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from serving.host.model import LoadRefused
from serving.host.optional_pandas import pandas as pd

CATBOOST, ENCODERS, STATSMODELS = "catboost", "category_encoders", "statsmodels"


def package_of(part: Any) -> str:
    """Return the top-level package that defines the class of `part`."""
    return type(part).__module__.partition(".")[0]


def count_features(estimator: Any) -> int | None:
    """Return how many columns an estimator of these packages takes, where ``n_features_in_`` does not say it."""
    if package_of(estimator) == CATBOOST:  # forgets the number when it is pickled, but not the names
        return len(getattr(estimator, "feature_names_", None) or ()) or None
    if not _is_results(estimator):
        return None
    shape = getattr(estimator.params, "shape", ())
    return shape[0] - getattr(estimator.model, "k_extra", 0) if shape else None


def find_kept_rows(estimator: Any) -> Any:
    """Return the rows that results of statsmodels keep of their training; None where they keep none.

    For a formula these are its columns as they were before the formula was applied. Raises LoadRefused where a formula
    needs columns that the results do not keep.
    """
    if not _is_results(estimator):
        return None
    data = getattr(estimator.model, "data", None)
    formula = getattr(data, "model_spec", None) or getattr(data, "design_info", None)
    if formula is None:
        rows = getattr(data, "orig_exog", None)
        return rows if getattr(rows, "ndim", 0) == 2 else getattr(estimator.model, "exog", None)
    table = getattr(data, "frame", None)
    variables = _list_variables(formula)
    names = [] if table is None else [name for name in table.columns if name in variables]
    if table is None or not names:
        raise LoadRefused(
            f"{type(estimator).__name__} was fitted with a formula, and does not say of which columns: "
            "publish it with serving.publish(..., X=rows), whose manifest.json says so"
        )
    return table[names]


def find_encoded_values(part: Any, names: Iterable[str | None]) -> dict[int, list[Any]]:
    """Return the categories that `part` knows, by the place of the column; an empty list where it takes any.

    `names` are those of its columns, None for a column without a name.
    """
    if package_of(part) == CATBOOST:
        places = [*part.get_cat_feature_indices(), *part.get_text_feature_indices()]
        return {place: [] for place in places}
    if package_of(part) != ENCODERS:
        return {}
    known = _find_categories(part)
    encoded = set(getattr(part, "cols", None) or ())
    return {
        place: known.get(key, [])
        for place, name in enumerate(names)
        if (key := place if name is None else name) in encoded
    }


def _find_categories(encoder: Any) -> dict[Any, list[Any]]:
    """Return the categories by column: of a list of mappings, or of a dict of tables that have them as their index."""
    mapping = getattr(getattr(encoder, "ordinal_encoder", None) or encoder, "mapping", None)
    if isinstance(mapping, Mapping):
        pairs = list(mapping.items())
    else:
        pairs = [(each.get("col"), each.get("mapping")) for each in mapping or () if isinstance(each, Mapping)]
    indexes = {column: getattr(held, "index", None) for column, held in pairs}
    return {column: index.tolist() for column, index in indexes.items() if isinstance(index, pd.Index)}


def _is_results(estimator: Any) -> bool:
    """Say whether these are results of a regression by statsmodels: time series do not answer rows."""
    module = type(estimator).__module__
    is_here = module.startswith(f"{STATSMODELS}.") and not module.startswith(f"{STATSMODELS}.tsa.")
    return is_here and hasattr(estimator, "params") and hasattr(estimator, "model")


def _list_variables(formula: Any) -> set[str]:
    """Return the names and quoted names in a formula of formulaic or patsy."""
    required = getattr(formula, "required_variables", None)
    if required is not None:
        return set(map(str, required))
    found: set[str] = set()
    for factor in getattr(formula, "factor_infos", ()):
        for node in ast.walk(ast.parse(factor.code, mode="eval")):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found
