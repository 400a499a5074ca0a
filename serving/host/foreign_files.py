"""Recognises files that cannot be served: what each file is, and what its owner should do with it.

Users bring files of other libraries, of older versions and with wrong suffixes. Each is recognised by its first bytes,
by the names of the files in an archive, or by the names in a pickle. Pure: no file is opened.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterable

# --- by the first bytes, the longest first where one begins like another ----------------------------------------------

_EXPORT_TORCH = "export the model with torch.onnx.export and serve the .onnx file"
_EXPORT_KERAS = (
    "save it with model.export('model.onnx', format='onnx') of Keras 3, or with tf2onnx, and serve the .onnx file"
)
_OLD_XGBOOST = (
    "an XGBoost model in the old binary format, saved by XGBoost 3.0 or older: load it there and save it as .ubj"
)

MAGICS: dict[bytes, str] = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run git lfs pull",
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19": f"a file of torch.save: {_EXPORT_TORCH}",
    b"\x89HDF": f"an HDF5 file, as Keras writes it: {_EXPORT_KERAS}",
    b"\x93NUMPY": "a NumPy array, not a model",
    b"%PDF": "a PDF document",
    b"PAR1": "a Parquet file: data, not a model",
    b"\x28\xb5\x2f\xfd": "compressed with zstd, which joblib does not read: compress it with zlib, gzip or lz4",
    b"CBM1": "a CatBoost model: save it with model.save_model('model.onnx', format='onnx') and serve that",
}
_OLD_XGBOOST_MAGICS = (b"binf", b"bs64", b"CONFIG-offset:")

# what Python's pickle writes for objects, dicts and lists in protocols 0 and 1
_OLD_PICKLE = re.compile(rb"c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n|\(i[A-Za-z_][\w.]*\n|\([dl]p\d+\n|[}\]]q\x00")
_SAVE_AGAIN = "load it where it was written and save it with joblib.dump, or with pickle.dump of Python 3"

# LearnerModelParamLegacy of XGBoost (src/learner.cc): 34 numbers of four bytes, then the lengths and texts of the
# objective and of the booster; files of 0.x and 1.x have no magic bytes before it
_XGBOOST_PARAMETER_BYTES = 136
_XGBOOST_BOOSTERS = (b"gbtree", b"gblinear", b"dart")


def describe_bytes(head: bytes) -> str | None:
    """Return what a file is that begins with `head`, and what to do; None for an unknown file.

    The first 512 bytes of the file are enough.
    """
    found = next((text for magic, text in MAGICS.items() if head.startswith(magic)), None)
    if found is not None:
        return found
    if is_old_xgboost(head):
        return _OLD_XGBOOST
    return f"a pickle in protocol 0 or 1, as Python 2 wrote it: {_SAVE_AGAIN}" if _OLD_PICKLE.match(head) else None


def is_old_xgboost(head: bytes) -> bool:
    """Say whether `head` begins a model in the binary format that XGBoost wrote up to 3.0."""
    if head.startswith(_OLD_XGBOOST_MAGICS):
        return True
    objective, place = _read_counted_text(head, _XGBOOST_PARAMETER_BYTES)
    booster, _ = _read_counted_text(head, place)
    return objective is not None and booster in _XGBOOST_BOOSTERS


def _read_counted_text(head: bytes, place: int) -> tuple[bytes | None, int]:
    """Return the text behind a length of eight bytes at `place`, None if there is none, and where the text ends."""
    if len(head) < place + 8:
        return None, place
    (length,) = struct.unpack_from("<Q", head, place)
    end = place + 8 + length
    text = head[place + 8 : end] if end <= len(head) else b""
    return (text, end) if text and text.isascii() and text.decode().isprintable() else (None, place)


# --- by the names of the files in a zip archive -----------------------------------------------------------------------


def describe_archive(names: Collection[str]) -> str | None:
    """Return what a zip archive with members of these names is, and what to do; None for an unknown archive."""
    last_names = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in last_names:
        return f"a file of torch.save: {_EXPORT_TORCH}"
    if "model.weights.h5" in last_names:
        return f"a Keras model: {_EXPORT_KERAS}"
    if names and all(name.endswith(".npy") for name in names):
        return "a file of NumPy arrays (.npz), not a model"
    return None


# --- by the names in a pickle -----------------------------------------------------------------------------------------

_LIBRARIES = {
    **dict.fromkeys(("torch", "torchvision", "pytorch_lightning", "lightning", "fastai"), ("PyTorch", _EXPORT_TORCH)),
    **dict.fromkeys(("keras", "tensorflow", "tf_keras", "scikeras"), ("Keras", _EXPORT_KERAS)),
}

# private modules that scikit-learn had for some time, and the last version that wrote their names
_SKLEARN_UNTIL = {
    "sklearn.ensemble._gb_losses": "1.3 or older",
    "sklearn.ensemble._hist_gradient_boosting.loss": "1.0 or older",
}


def describe_library(modules: Iterable[str]) -> str | None:
    """Return the other library whose objects a pickle contains that names these modules, and what to do; else None."""
    for module in modules:
        found = _LIBRARIES.get(module.partition(".")[0])
        if found is not None:
            return f"the file holds a model of {found[0]}: {found[1]}"
    return None


def describe_moved(names: Iterable[str], version: str | None, here: str) -> str | None:
    """Return what to do with a pickle that has `names` which scikit-learn has moved since; None where there are none.

    `version` is the scikit-learn that wrote the file, None if unknown; `here` is the one that runs.
    """
    name = next(iter(names), None)
    if name is None:
        return None
    module = name.rpartition(".")[0]
    until = next((text for place, text in _SKLEARN_UNTIL.items() if f"{module}.".startswith(f"{place}.")), None)
    if version is None and until is None:
        # since 0.22 the private modules of scikit-learn begin with an underscore
        until = "another version" if "._" in module else "0.x, before 0.24"
    by = f"scikit-learn {version}" if version else f"scikit-learn ({until})"
    return (
        f"the file was saved by {by} and names {name}, which scikit-learn {here} does not have: "
        "train the model again with the version here, or serve it with the one that saved it"
    )


def describe_error(message: str) -> str | None:
    """Explain the message of an exception that a library raised while it read a file; None for an unknown message."""
    if "node array from the pickle has an incompatible dtype" in message:
        return (
            "the file holds trees of a scikit-learn before 1.3, which this one cannot read: "
            "train the model again with the version here, or serve it with the one that saved it"
        )
    return None


def advise_on_parts(parts: Iterable[object]) -> str:
    """Return what to do instead of saving these objects in a dict, list or tuple."""
    found = list(parts)
    has_model = any(hasattr(part, "predict") for part in found)
    transforms = [part for part in found if hasattr(part, "transform") and hasattr(part, "fit")]
    if has_model and not all(hasattr(part, "predict") for part in transforms):
        return "make a Pipeline of its parts, make_pipeline(scaler, model), and save that (both may be fitted already)"
    return "save the estimator itself"


HOW_TO_FIND_MODULES = (
    "the working directory is not searched: install the module into the server's environment, make one that has it "
    "(serving environment create), or start the server with PYTHONPATH set to its directory"
)
PYTHON_2 = f"the file was saved by Python 2: {_SAVE_AGAIN}"
OLD_LIGHTGBM = (
    "the file was pickled by LightGBM 2 or 3, whose estimators this version does not read: there, save it with "
    "model.booster_.save_model('model.txt') and serve that file, or train the model again with the version here"
)
OLD_XGBOOST_INSIDE = (
    "the file holds an XGBoost model in the old binary format, saved by XGBoost 3.0 or older: load it there and "
    "save it as .ubj, with model.save_model('model.ubj')"
)
