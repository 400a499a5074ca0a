"""Loads models from files. The only reader of model files; call it in a host process only.

Pickles, those of joblib too, and skops files are read by `restricted`, which builds known classes only. If the operator
trusts such a file, it may run any code that it names. Files of ONNX, XGBoost and LightGBM contain no Python objects,
but libraries written in C and C++ read them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from gzip import BadGzipFile
from lzma import LZMAError
from pickle import PickleError
from typing import Any, BinaryIO, Optional
from zipfile import BadZipFile

import joblib
import joblib.numpy_pickle
import numpy as np
import scipy
import sklearn
from numpy.typing import NDArray

from serving.domain.mlmodel import NamedColumn
from serving.domain.report import MAX_EVIDENCE_CHARACTERS
from serving.domain.signature import Signature
from serving.domain.version import Format
from serving.host import boosters, foreign_files
from serving.host.input_columns import why_categories_unknown
from serving.host.model import LoadedModel, LoadRefused, NotAnEstimator, NotVouched, describe_exception, one_line
from serving.host.nested_estimators import is_from_sklearn, limit_to_one_thread, walk_nested_estimators
from serving.host.older_sklearn import find_saving_version
from serving.host.restricted import (
    Distrusted,
    Survey,
    Unlisted,
    check_answers,
    check_soundness,
    explain_names,
    find_moved,
    load_restricted,
    load_skops,
    survey_file,
)
from serving.host.signature_of_estimator import examine_estimator

SKLEARN = "scikit-learn"

# Smaller files load in a fraction of a second without a mapping, and then keep no page of the page cache in use.
MIN_MAPPED_FILE_BYTES = 32 << 20

# A small array that the model keeps, such as its labels, would keep the whole mapping in memory.
_MIN_MAPPED_ARRAY_BYTES = 64 << 10
_ALIGNMENT = 16
_PICKLE = b"\x80"
_NATIVE = (Format.XGBOOST, Format.LIGHTGBM)
_UNRESTRICTED = "it was loaded without restrictions"

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


# called when the file was read, before its objects are used; with a text if a setting had to trust the file for that
OnRead = Callable[[Optional[str]], None]


@dataclass(frozen=True, slots=True)
class Trust:
    """What a file may name: see the settings of `security` and `candidate` with these names.

    With `is_restricted` False a pickle or a skops file may call anything. With `is_final` False a refused file will be
    loaded in another way, so the reason is not needed and the file is not read again to find it.
    """

    is_restricted: bool = True
    pickle_trusted: Sequence[str] = ()
    skops_trusted: Sequence[str] = ()
    max_expansion: float = 200.0
    is_final: bool = True


def load_model(
    path: str,
    format: Format,  # noqa: A002  (its name in the whole package)
    trust: Trust = Trust(),
    declared: Signature | None = None,
    named: Sequence[NamedColumn] = (),
    on_read: OnRead = lambda _: None,
) -> LoadedModel:
    """Load the file at `path` in the given `format`, whatever its name, and derive its signature.

    `declared` is the publisher's signature, `named` what MLflow says of the columns: see `signature_of_estimator`.
    `on_read` is called after the file was read and before the model is used. All parts are set to compute in one
    thread. Blocks; runs the model on a few rows. Raises LoadRefused with one line that says why, and NotVouched where
    only trust is missing.
    """
    if format is Format.ONNX:
        from serving.host.onnx_model import load_onnx  # noqa: PLC0415  (importing onnxruntime starts a thread)

        on_read(None)
        return load_onnx(path, declared)
    estimator, trained_with = _read_file(path, format, trust, on_read)
    if any(map(boosters.is_old_lightgbm_estimator, walk_nested_estimators(estimator))):
        raise LoadRefused(foreign_files.OLD_LIGHTGBM)
    limit_to_one_thread(estimator)
    try:
        check_answers(estimator)
    except Distrusted as error:
        raise NotVouched(one_line(str(error))) from None
    if (unknown := why_categories_unknown(estimator)) is not None:
        raise LoadRefused(unknown)
    with warnings.catch_warnings(action="ignore"):
        try:
            return examine_estimator(estimator, declared=declared, named=named, trained_with=trained_with)
        except NotAnEstimator as error:
            raise NotAnEstimator(f"the file holds {error}") from None


def write_estimator(estimator: Any, file: str | BinaryIO) -> None:
    """Write `estimator` to `file` with joblib, uncompressed; raises the exceptions of joblib."""
    joblib.dump(estimator, file)


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries for models in this process."""
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        SKLEARN: sklearn.__version__,
        "joblib": joblib.__version__,
    }
    loaded = {name: sys.modules.get(name) for name in ("pandas", "onnxruntime", *boosters.EXTRAS)}
    return versions | {name: module.__version__ for name, module in loaded.items() if module is not None}


def _read_file(
    path: str,
    format: Format,  # noqa: A002
    trust: Trust,
    on_read: OnRead,
) -> tuple[Any, dict[str, str]]:
    """Return the object in the file, and the library versions that the file says it was written with."""
    if format in _NATIVE:
        with warnings.catch_warnings(action="ignore"):
            found = boosters.load_native_file(path, format)
        on_read(None)
        return found
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator, vouched = _read_python_file(path, format, trust)
        except LoadRefused:
            raise
        except Distrusted as error:
            text = _explain_distrust(error, path, format, trust)
            raise NotVouched(_to_one_line(_format_skew(caught, "the file was saved by {}: ") + text)) from None
        except Exception as error:  # noqa: BLE001  (a file may raise anything)
            raise LoadRefused(_explain_failure(error, path, format, trust, caught)) from None
    on_read(vouched)
    written_by = find_saving_version(caught)
    if written_by is None and any(map(is_from_sklearn, walk_nested_estimators(estimator))):
        written_by = sklearn.__version__  # scikit-learn warns when a file was written by another version
    return boosters.wrap_bare_booster(estimator), {SKLEARN: written_by} if written_by else {}


def _read_python_file(path: str, format: Format, trust: Trust) -> tuple[Any, str | None]:  # noqa: A002
    """Return the object in a file of Python objects, and which setting trusts it; None where no trust was needed."""

    def read(trusted: Sequence[str]) -> Any:
        if format is Format.SKOPS:
            return load_skops(path, trusted, trust.max_expansion)
        return _unpickle(path, replace(trust, pickle_trusted=trusted))

    is_skops = format is Format.SKOPS
    if not trust.is_restricted and not is_skops:
        return read(()), _UNRESTRICTED
    setting, trusted = "security.pickle_trusted", trust.pickle_trusted
    if is_skops:
        setting, trusted = "security.skops_trusted", trust.skops_trusted
    if trusted or not trust.is_restricted:
        with contextlib.suppress(Distrusted):  # most files do not need the trusted names
            return read(()), None
    if not trust.is_restricted:
        return _read_any_skops(path), _UNRESTRICTED
    return read(trusted), f"{setting} vouches for what it names" if trusted else None


def _survey_names(path: str, format: Format, trust: Trust) -> Survey:  # noqa: A002
    """Return the names in a refused pickle; an empty survey for files of other formats."""
    is_pickle = format in (Format.JOBLIB, Format.PICKLE)
    return survey_file(path, trust.max_expansion) if is_pickle and trust.is_final else Survey()


def _explain_distrust(error: Distrusted, path: str, format: Format, trust: Trust) -> str:  # noqa: A002
    """Return why restricted loading refuses a file; lists all names where names are the reason."""
    survey = _survey_names(path, format, trust)
    text = _explain_foreign_pickle(survey)
    if text is None and isinstance(error, Unlisted):
        text = explain_names(survey, trust.pickle_trusted)
    return text or str(error)


def _explain_failure(
    error: Exception,
    path: str,
    format: Format,  # noqa: A002
    trust: Trust,
    caught: Sequence[warnings.WarningMessage],
) -> str:
    """Return why loading a file raised `error`."""
    if isinstance(error, MemoryError):
        return _explain_exception(error)
    survey = _survey_names(path, format, trust)
    text = _explain_foreign_pickle(survey) or foreign_files.describe_error(str(error))
    if text is None and survey.has_bytes_of_python_2 and isinstance(error, (*_DAMAGE, TypeError, ValueError)):
        text = foreign_files.PYTHON_2
    if text is None:
        text = _explain_exception(error)
    skew = _format_skew(caught, "; it was saved by {}")
    if not skew and survey.sklearn_version not in (None, sklearn.__version__):
        skew = f"; it was saved by {SKLEARN} {one_line(str(survey.sklearn_version))}, this is {sklearn.__version__}"
    return _to_one_line(text if "saved by" in text else text + skew)


def _explain_foreign_pickle(survey: Survey) -> str | None:
    """Return what to do with a pickle of another library, or of another version of a library; None for all others."""
    moved = find_moved(survey.names)
    if moved:
        return foreign_files.describe_moved(moved, survey.sklearn_version, sklearn.__version__)
    text = foreign_files.describe_library(module for module, _ in survey.names)
    return foreign_files.OLD_XGBOOST_INSIDE if any(map(foreign_files.is_old_xgboost, survey.handles)) else text


def _to_one_line(message: str) -> str:
    """Return a refusal as one line; it may be longer than other messages, because it may list many names."""
    return one_line(message, MAX_EVIDENCE_CHARACTERS)


def _format_skew(caught: Sequence[warnings.WarningMessage], text: str) -> str:
    """Return `text` with the versions of scikit-learn that wrote the file and that runs here; empty if they agree."""
    written_by = find_saving_version(caught)
    return text.format(f"{SKLEARN} {written_by}, this is {sklearn.__version__}") if written_by else ""


def _unpickle(path: str, trust: Trust) -> Any:
    """Load a joblib or pickle file: joblib reads both, and many ``.pkl`` files were written by joblib.

    The arrays in a large uncompressed file are mapped, not read: this is four times as fast, and an array that an
    estimator copies (every tree does) is then in memory only once.
    """
    if os.path.getsize(path) < MIN_MAPPED_FILE_BYTES or _is_compressed(path):
        return _unpickle_as(path, trust, None)
    with _share_one_mapping(path):
        return _unpickle_as(path, trust, "c")


def _unpickle_as(path: str, trust: Trust, mmap_mode: str | None) -> Any:
    if trust.is_restricted:
        return load_restricted(path, trust.pickle_trusted, trust.max_expansion, mmap_mode)
    estimator = joblib.load(path, mmap_mode=mmap_mode)
    check_soundness(estimator)
    return estimator


def _is_compressed(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(1) != _PICKLE


@contextlib.contextmanager
def _share_one_mapping(path: str) -> Iterator[None]:
    """Make joblib take all arrays from one mapping of the file, instead of one mapping for each array.

    A mapping needs a file descriptor, and a boosted model has ten thousand arrays. The mapping is copy-on-write, so
    arrays stay writable and the file does not change. Only one thread may use this at a time.
    """
    with open(path, "rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def make_array(_: str, dtype: Any, shape: Any, order: Any, mode: str, offset: int) -> NDArray[Any]:
        del mode
        try:
            found: NDArray[Any] = np.ndarray(shape, dtype, buffer=mapping, offset=offset, order=order)
        except (TypeError, ValueError) as error:  # the buffer is too small
            raise EOFError(f"an array ends after the file: {error}") from None
        if not found.dtype.isnative:  # written on a machine with another byte order
            return found.astype(found.dtype.newbyteorder("="))
        is_aligned = offset % _ALIGNMENT == 0  # joblib before 1.2 did not align arrays
        return found if is_aligned and found.nbytes >= _MIN_MAPPED_ARRAY_BYTES else found.copy(order="K")

    original = joblib.numpy_pickle.make_memmap
    joblib.numpy_pickle.make_memmap = make_array
    try:
        yield
    finally:
        joblib.numpy_pickle.make_memmap = original


def _read_any_skops(path: str) -> Any:
    """Load a skops file without restrictions: the file may call any function with any arguments."""
    import skops.io  # noqa: PLC0415  (takes half a second where it was not preloaded)

    estimator = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    check_soundness(estimator)
    return estimator


def _explain_exception(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if error.name.partition(".")[0] in boosters.EXTRAS:
            return boosters.explain_installation(error.name.partition(".")[0])
        name = one_line(error.name)
        return f"the file needs the module '{name}', which is not installed here ({foreign_files.HOW_TO_FIND_MODULES})"
    if isinstance(error, AttributeError) and "__main__" in str(error):
        return one_line(
            f"the file names a class or function of the script that saved it ({error}): "
            "put it into a module that is installed here"
        )
    if isinstance(error, MemoryError):
        return "the model does not fit into the memory a host may take (candidate.memory_mb)"
    if isinstance(error, _DAMAGE):
        return one_line(f"the file is cut short or damaged ({describe_exception(error)})")
    return one_line(f"the file cannot be loaded ({describe_exception(error)})")
