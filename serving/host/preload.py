"""Everything a host may need, imported once in the zygote so that a candidate costs a fork and not an import.

A host whose model is watched (`sandbox.audit`) can import nothing more, so what libraries import when they are first
used is imported here as well, by using them.

onnxruntime is left out on purpose: importing it starts a thread, and the zygote must stay single-threaded to be forked
safely. A host imports it when its model asks for it, a compiler always: for their sake its library is loaded and linked
here, which starts nothing and takes a quarter off the import.

skops is left out, too: its files are read here without it, and it imports all tests of scikit-learn, and pytest.
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

import cryptography.hazmat.backends.openssl.backend
import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401  (importing is the point)
import joblib  # noqa: F401  (importing is the point)
import pandas
import scipy.sparse  # noqa: F401  (importing is the point)
import skl2onnx  # noqa: F401  (importing is the point)
import sklearn
import threadpoolctl

from serving import sandbox
from serving.compiling import converters, find_guard, proof_rows, thresholds  # noqa: F401  (importing is the point)
from serving.host import (
    boosters,
    child,  # noqa: F401  (importing is the point)
)
from serving.host.restricted.allow_list import read_allow_list

_SKIPPED = ("tests", "conftest", "experimental", "_build_utils", "externals", "setup")


def _import_all_of_sklearn() -> None:
    """Import every public subpackage: a model file may name any of them."""
    for module in pkgutil.iter_modules(sklearn.__path__):
        if module.name not in _SKIPPED:
            with contextlib.suppress(ImportError):
                importlib.import_module(f"sklearn.{module.name}")


def _use_once() -> None:
    """Have libraries do what they do at their first use: import more of themselves, look functions up, read files."""
    pandas.DataFrame({"text": ["a"], "number": [1.0]}).sum()  # its strings are Arrow's, where that is installed
    narwhals = sys.modules.get("narwhals.stable.v2")  # scikit-learn from 1.9 on asks it about tables
    if narwhals is not None:
        narwhals.from_native(pandas.DataFrame({"number": [1.0]}))
        narwhals.from_native([], pass_through=True)  # looks for plugins among all installed packages
    with threadpoolctl.threadpool_limits(1), contextlib.suppress(ImportError):
        from sklearn.utils.parallel import _get_threadpool_controller  # noqa: PLC0415  (not before 1.7)

        _get_threadpool_controller().limit(limits=1).restore_original_limits()


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
    for name in boosters.EXTRAS:  # importing them starts no thread
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _link_onnxruntime()
    sandbox.find_library_paths()  # asked once; every host knows the answer
    read_allow_list()  # likewise
    _use_once()
    threadpoolctl.threadpool_info()  # looks at every loaded library once; hosts inherit the answer
