"""Register which function draws which class of estimators: the exact class, because a subclass may answer otherwise.

A converter takes the fitted part, its input rows and the method. It returns the names of float64 tensors in the shapes
that scikit-learn gives (labels have the dtype of ``classes_``), or NotImplemented to leave the part to skl2onnx. A
converter for ``transform`` takes no method and returns Rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnx import TensorProto

from serving.compiling.converters.blocks import Rows
from serving.compiling.drawing import NotCompilable

Converter = Callable[[Any, Rows, str], Any]
Transform = Callable[[Any, Rows], Any]

CONVERTERS: dict[str, Converter] = {}
TRANSFORMS: dict[str, Transform] = {}
_BOOSTERS = ("xgboost.", "lightgbm.", "serving.host.boosters.")
_PACKAGES = ("sklearn.", "skl2onnx.", *_BOOSTERS)


def register_converter(*names: str) -> Callable[[Converter], Converter]:
    """Register a converter for all methods but ``transform`` of the classes called `names`."""

    def register(converter: Converter) -> Converter:
        CONVERTERS.update(dict.fromkeys(names, converter))
        return converter

    return register


def register_transform(*names: str) -> Callable[[Transform], Transform]:
    """Register a converter for ``transform`` of the classes called `names`."""

    def register(converter: Transform) -> Transform:
        TRANSFORMS.update(dict.fromkeys(names, converter))
        return converter

    return register


def draw_answers(part: Any, rows: Rows, method: str) -> tuple[str, ...]:
    """Draw `method` of `part`, once, and return the names of its tensors; raises NotCompilable."""
    key = ("answers", id(part), method, rows.blocks)
    return tuple(rows.drawing.compute_once(key, lambda: _draw_answers(part, rows, method)))


def _draw_answers(part: Any, rows: Rows, method: str) -> tuple[str, ...]:
    if method == "transform":
        return (draw_transform(part, rows).draw_matrix(),)
    _require_known(part)
    converter = CONVERTERS.get(type(part).__name__)
    if converter is None and type(part).__module__.startswith(_BOOSTERS):
        raise NotCompilable(f"{type(part).__name__} has no compiled form")
    found = NotImplemented if converter is None else converter(part, rows, method)
    if found is NotImplemented and method == "predict_log_proba":
        found = tuple(rows.drawing.draw_node("Log", name) for name in draw_answers(part, rows, "predict_proba"))
    if found is NotImplemented:
        from serving.compiling.converters import fallback  # noqa: PLC0415  (loads skl2onnx: only when needed)

        found = fallback.convert_method(part, rows, method)
    return (found,) if isinstance(found, str) else tuple(found)


def draw_answer(part: Any, rows: Rows, method: str) -> str:
    """Draw `method` of `part` where it gives one tensor."""
    found = draw_answers(part, rows, method)
    if len(found) != 1:
        raise NotCompilable(f"{type(part).__name__} gives several arrays inside another estimator")
    return found[0]


def draw_numeric_answer(part: Any, rows: Rows, method: str) -> str:
    """Draw `method` of `part` as one float64 tensor, labels included."""
    return rows.drawing.draw_node("Cast", draw_answer(part, rows, method), to=TensorProto.DOUBLE)


def draw_transform(part: Any, rows: Rows) -> Rows:
    """Draw ``transform`` of `part`, once; raises NotCompilable."""
    found = rows.drawing.compute_once(("transformed", id(part), rows.blocks), lambda: _draw_transform(part, rows))
    assert isinstance(found, Rows)
    return found


def _draw_transform(part: Any, rows: Rows) -> Rows:
    if isinstance(part, str) or part is None:
        return rows if part != "drop" else Rows(rows.drawing, ())
    _require_known(part)
    converter = TRANSFORMS.get(type(part).__name__)
    found = NotImplemented if converter is None else converter(part, rows)
    if found is NotImplemented:
        from serving.compiling.converters import fallback  # noqa: PLC0415  (loads skl2onnx: only when needed)

        found = fallback.convert_transform(part, rows)
    assert isinstance(found, Rows)
    return found


def _require_known(part: Any) -> None:
    kind = type(part)
    if not f"{kind.__module__}.".startswith(_PACKAGES):
        raise NotCompilable(f"{kind.__name__} ({kind.__module__}) is not scikit-learn's own and has no compiled form")
