"""pandas, or where it is not installed what stands for it: nothing is an object of its classes, and none can be made.

Models on arrays need no pandas, and an environment may lack it. Import it as ``from serving.host.optional_pandas import
pandas as pd``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from serving.host.model import LoadRefused

if TYPE_CHECKING:
    import pandas

__all__ = ["HAS_PANDAS", "PandasAbsent", "pandas"]

HAS_PANDAS = True


class PandasAbsent(LoadRefused):
    """The model needs a table, and its environment has no pandas."""

    def __init__(self) -> None:
        super().__init__("the model takes or holds a table, and its environment has no pandas: install pandas there")


class _AbsentKind:
    """Stands for every class and function of pandas."""

    def __new__(cls, *_: Any, **__: Any) -> NoReturn:
        raise PandasAbsent


class _AbsentValue:
    """Stands for a value of a class that has one value only."""


class _AbsentPandas:
    """Stands for the module."""

    NA, NaT = _AbsentValue(), _AbsentValue()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_AbsentKind,), {})


if not TYPE_CHECKING:
    try:
        import pandas
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        pandas, HAS_PANDAS = _AbsentPandas(), False
