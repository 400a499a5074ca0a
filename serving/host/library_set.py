"""Says what the environment of this process lacks, of the libraries that hosts can do without."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import lru_cache

import threadpoolctl

from serving.sandbox.audit import NO_EXCEPTIONS, WatchExceptions

COMPILERS = ("onnx", "skl2onnx", "onnxruntime")
# what libraries try to import each time they look at rows, to tell tables of other packages
_TRIED = ("pandas", "cudf", "cupy", "dask", "datatable", "modin", "polars", "pyarrow")
# what compiling imports before its process is forked; onnxruntime starts a thread, and is imported after that
_COMPILING = (
    *("skl2onnx", "serving.compiling.compile_model", "serving.compiling.converters", "serving.compiling.find_guard"),
    *("serving.compiling.proof_rows", "serving.compiling.thresholds", "serving.host.graph_check.checker_process"),
)


def is_own_environment() -> bool:
    """Whether this process runs in the server's own environment: only another one needs substitutes."""
    return "serving.host.substitutes" not in sys.modules


@lru_cache
def find_watch_exceptions() -> WatchExceptions:
    """Return what the libraries of this environment do whenever a model answers: none at home.

    scikit-learn and boosters try to import other packages, and threadpoolctl before 3.6 opens the libraries whose
    threads it counts. The zygote asks first, and hosts inherit the answer.
    """
    if is_own_environment():
        return NO_EXCEPTIONS
    loaded = frozenset(str(each["filepath"]) for each in threadpoolctl.threadpool_info())
    return WatchExceptions(frozenset(name for name in _TRIED if importlib.util.find_spec(name) is None), loaded)


@lru_cache
def why_no_compiler() -> str | None:
    """Say why no model can be compiled in this environment; None where one can. Imports what compiling needs.

    The zygote asks first, and hosts inherit the answer. Does not import onnxruntime.
    """
    absent = [name for name in COMPILERS if importlib.util.find_spec(name) is None]
    if absent:
        return f"this environment lacks {', '.join(absent)}: install them there to have it compiled"
    try:
        for name in _COMPILING:
            importlib.import_module(name)
    except Exception as error:
        if is_own_environment():
            raise
        return f"the {', '.join(COMPILERS)} of this environment are too old or too new: {type(error).__name__}: {error}"
    return None
