"""Imports everything a host may need, once in the zygote, so that a candidate needs a fork and no imports.

A host whose model is watched (`sandbox.audit`) can import nothing more. Some libraries import modules at first use, so
they are used once here.

onnxruntime is not imported: its import starts a thread, and the zygote must stay single-threaded to be forked safely.
A host imports it for an ONNX model, a compiler process always. Therefore its shared library is loaded and linked here,
which starts no thread and makes the later import a quarter shorter.

skops is not imported either: its files are read without it, and it imports all tests of scikit-learn, and pytest.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import pkgutil
import sys
import warnings
from pathlib import Path

import joblib  # noqa: F401  (importing is the point)
import numpy as np
import scipy.sparse  # noqa: F401  (importing is the point)
import sklearn
import threadpoolctl

from serving import sandbox
from serving.host import (
    boosters,
    child,  # noqa: F401  (importing is the point)
)
from serving.host.date_columns import EXAMPLES, parse_dates
from serving.host.library_set import find_watch_exceptions, is_own_environment, why_no_compiler
from serving.host.optional_pandas import HAS_PANDAS
from serving.host.optional_pandas import pandas as pd
from serving.host.restricted.allow_list import Distrusted, read_allow_list

# what checks signatures: only hosts of the server's own environment do that
_CRYPTOGRAPHY = (
    "cryptography.hazmat.backends.openssl.backend",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
)
_SKIPPED = ("tests", "conftest", "experimental", "_build_utils", "externals", "setup")


def _import_all_of_sklearn() -> None:
    """Import every public subpackage: a model file may name any of them."""
    for module in pkgutil.iter_modules(sklearn.__path__):
        if module.name not in _SKIPPED:
            with contextlib.suppress(Exception):  # some fail in other ways where NumPy is newer than scikit-learn
                importlib.import_module(f"sklearn.{module.name}")


def _use_libraries_once() -> None:
    """Use libraries once, so that they do the work of the first use: import modules, look up functions, read files."""
    if HAS_PANDAS:
        pd.DataFrame({"text": ["a"], "number": [1.0]}).sum()  # imports Arrow for text columns, where it is installed
        for kind, texts in EXAMPLES.items():  # pandas before 2 makes code of its own when it reads the first date
            parse_dates(np.array(texts, dtype=object), kind, "")
    narwhals = sys.modules.get("narwhals.stable.v2")  # scikit-learn 1.9 and later checks tables with it
    if narwhals is not None and HAS_PANDAS:
        narwhals.from_native(pd.DataFrame({"number": [1.0]}))
        narwhals.from_native([], pass_through=True)  # looks for plugins among all installed packages
    with threadpoolctl.threadpool_limits(1), contextlib.suppress(ImportError):
        from sklearn.utils.parallel import _get_threadpool_controller  # noqa: PLC0415  (not before 1.7)

        _get_threadpool_controller().limit(limits=1).restore_original_limits()


def _require_own_libraries() -> None:
    """Import what the server's own environment must have; raises ImportError where something is missing."""
    for name in _CRYPTOGRAPHY:
        importlib.import_module(name)
    if not HAS_PANDAS:
        raise ImportError("pandas is not installed")
    if (reason := why_no_compiler()) is not None:
        raise ImportError(reason)


def _link_onnxruntime() -> None:
    """Load the shared library that onnxruntime will import, without running the import."""
    found = importlib.util.find_spec("onnxruntime")
    for place in found.submodule_search_locations or () if found else ():
        for library in Path(place, "capi").glob("onnxruntime_pybind11_state*.so"):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(library))


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    _import_all_of_sklearn()
    if is_own_environment():
        _require_own_libraries()
    if why_no_compiler() is None:
        _link_onnxruntime()
    for name in boosters.EXTRAS:  # importing them starts no thread; broken ones are met again when a file needs them
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    sandbox.find_library_paths()  # searched once; every host inherits the result
    with contextlib.suppress(Distrusted):  # none for this scikit-learn: then no file is loaded without trust
        read_allow_list()  # likewise
    _use_libraries_once()
    threadpoolctl.threadpool_info()  # looks at every loaded library once; hosts inherit the answer
    find_watch_exceptions()
