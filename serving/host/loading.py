"""From a file to a model. The only reader of model files; everything read here runs code of whoever wrote the file.

Call it in a host process only: joblib and pickle files execute what they name, skops files may only name what skops or
the operator trusts, ONNX files hold no Python.
"""

from __future__ import annotations

import platform
import sys
import warnings
import zlib
from collections.abc import Sequence
from gzip import BadGzipFile
from lzma import LZMAError
from pickle import PickleError
from typing import Any, BinaryIO
from zipfile import BadZipFile

import joblib
import numpy as np
import pandas as pd
import scipy
import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from serving.domain.signature import Signature
from serving.domain.version import Format
from serving.host.describe import examine
from serving.host.model import LoadedModel, LoadRefused, NotAnEstimator, one_line, told
from serving.host.parts import all_parts, compute_alone, is_from_sklearn

# Compiled trees: skops asks first because crossed node numbers can crash the process or loop for ever. Here that is a
# host, with a deadline, and a joblib file could do the same.
TRUSTED_TREES = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
SKLEARN = "scikit-learn"

_DAMAGE = (
    EOFError,
    IndexError,
    KeyError,
    PickleError,
    UnicodeDecodeError,
    BadGzipFile,
    BadZipFile,
    LZMAError,
    zlib.error,
)


def load(
    path: str,
    format: Format,  # noqa: A002  (what it is called everywhere else)
    skops_trusted: Sequence[str] = (),
    declared: Signature | None = None,
) -> LoadedModel:
    """Load the file at `path` as what `format` says, whatever its name, and find out its signature.

    `skops_trusted` are types a skops file may name beyond skops' own list. `declared` is the publisher's signature, see
    `describe.examine`. All parts are told to compute in one thread. Blocks; a few rows are answered on the way. Raises
    LoadRefused with one line that says why.
    """
    if format is Format.ONNX:
        from serving.host.onnx_model import load_onnx  # noqa: PLC0415  (importing onnxruntime starts a thread)

        return load_onnx(path, declared)
    estimator, trained_with = _read(path, format, skops_trusted)
    compute_alone(estimator)
    with warnings.catch_warnings(action="ignore"):
        try:
            return examine(estimator, declared=declared, trained_with=trained_with)
        except NotAnEstimator as error:
            raise NotAnEstimator(f"the file holds {error}") from None


def dump(estimator: Any, file: str | BinaryIO) -> None:
    """Write `estimator` with joblib, uncompressed; raises what joblib raises."""
    joblib.dump(estimator, file)


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries models depend on, as they run here."""
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        SKLEARN: sklearn.__version__,
        "joblib": joblib.__version__,
        "pandas": pd.__version__,
    }
    onnxruntime = sys.modules.get("onnxruntime")
    return versions if onnxruntime is None else {**versions, "onnxruntime": onnxruntime.__version__}


def _read(path: str, format: Format, skops_trusted: Sequence[str]) -> tuple[Any, dict[str, str]]:  # noqa: A002
    """Return the object in the file and the versions the file says it was written by."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator = _read_skops(path, skops_trusted) if format is Format.SKOPS else _unpickle(path)
        except LoadRefused:
            raise
        except Exception as error:  # noqa: BLE001  (a file may raise anything)
            written_by = _warned_of(caught)
            skew = f"; it was saved by {SKLEARN} {written_by}, this is {sklearn.__version__}" if written_by else ""
            raise LoadRefused(_why(error) + skew) from None
    written_by = _warned_of(caught)
    if written_by is None and any(map(is_from_sklearn, all_parts(estimator))):
        written_by = sklearn.__version__  # scikit-learn warns of every other version
    return estimator, {SKLEARN: written_by} if written_by else {}


def _warned_of(caught: Sequence[warnings.WarningMessage]) -> str | None:
    messages = (entry.message for entry in caught)
    skewed = (message for message in messages if isinstance(message, InconsistentVersionWarning))
    return next((str(message.original_sklearn_version) for message in skewed), None)


def _unpickle(path: str) -> Any:
    """Load a joblib or pickle file: joblib reads both, and many ``.pkl`` files were written by joblib."""
    return joblib.load(path)


def _read_skops(path: str, trusted: Sequence[str]) -> Any:
    import skops.io  # noqa: PLC0415  (takes half a second where it was not preloaded)

    allowed = {*trusted, *TRUSTED_TREES}
    named = skops.io.get_untrusted_types(file=path)
    unknown = sorted(set(named) - allowed)
    if unknown:
        listed = ", ".join(f'"{name}"' for name in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise LoadRefused(f"the file names types nobody trusts; if you do: security.skops_trusted = [{listed}]")
    return skops.io.load(path, trusted=[name for name in named if name in allowed])


def _why(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the file needs the module '{one_line(error.name)}', which is not installed here"
    if isinstance(error, AttributeError) and "__main__" in str(error):
        return one_line(
            f"the file names a class or function of the script that saved it ({error}): "
            "put it into a module that is installed here"
        )
    if isinstance(error, MemoryError):
        return "the model does not fit into the memory a host may take (candidate.memory_mb)"
    if isinstance(error, _DAMAGE):
        return one_line(f"the file is cut short or damaged ({told(error)})")
    return one_line(f"the file cannot be loaded ({told(error)})")
