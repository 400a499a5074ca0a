"""Describes files that are no artefacts, by their names: what they are, and which form would serve."""

from __future__ import annotations

import os
from collections.abc import Sequence

from serving.domain.version import FULL_NAMES, SUFFIXES

_XGBOOST = (
    "it does not begin as a model that is read here; XGBoost's old binary format is not: load it with the XGBoost that "
    "wrote it, and Booster.save_model('model.ubj')"
)
_AS_ONNX = "export the network to ONNX and save it as 'model.onnx'"
_BY_SUFFIX = {
    ".cbm": "CatBoost's own format is not read here; save the model with model.save_model('model.onnx', format='onnx')",
    ".sav": "no format is known by this ending; rename a file of joblib to '.joblib' and one of pickle to '.pkl'",
    **dict.fromkeys((".bst", ".model", ".xgb"), _XGBOOST),
    ".lgb": "it does not begin as LightGBM's text: booster.save_model('model.txt')",
    ".bin": f"it begins neither as a pickle nor as another model that is read here; if PyTorch wrote it, {_AS_ONNX}",
    **dict.fromkeys((".pt", ".pth", ".safetensors", ".ckpt"), f"PyTorch's files are not read here; {_AS_ONNX}"),
    **dict.fromkeys((".h5", ".hdf5", ".keras", ".pb", ".tflite"), f"Keras' files are not read here; {_AS_ONNX}"),
    ".npy": "an array is no model",
    ".npz": "arrays are no model",
    **dict.fromkeys((".csv", ".parquet", ".tsv", ".xlsx"), "a table is no model"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz"), "archives are not opened; unpack it"),
}
_BESIDE = (".md", ".rst", ".yaml", ".yml", ".toml", ".lock", ".log", ".ini", ".cfg", ".py", ".ipynb")
_ALSO_BESIDE = ("readme", "license", "licence", "makefile", "dockerfile", "requirements.txt", "manifest.json")
_BY_NAME = {name: f"read in a version directory only: MODEL/VERSION/{name}" for name in FULL_NAMES}
_GUESSES = ((".json", "XGBoost"), (".txt", "LightGBM"))


def describe_left_alone(names: Sequence[str]) -> str | None:
    """Say which files do not count because of their names: unfinished ones, and those that store.ignore names.

    None when all of them are hidden: on purpose, or by a publisher that is still writing. Pure.
    """
    shown = [name for name in names if not name.startswith(".")]
    if not shown:
        return None
    more = f" and {len(shown) - 1} more do" if len(shown) > 1 else " does"
    return f"{shown[0]!r}{more} not count because of the name, as unfinished or by store.ignore"


def describe_unnumbered(name: str) -> str:
    """Say why a model file with a word as its name is no version, and which name would make it one. Pure."""
    suffix = os.path.splitext(name)[1]
    return f"serves nothing: name it by its version number, '1{suffix}', or put it into a version directory"


def describe_other_file(name: str) -> str | None:
    """Say why a file with this bare name serves nothing among models and versions, and what would serve.

    None for files that people keep beside models, such as a README. Case is ignored. Pure.
    """
    lower = name.lower()
    suffix = os.path.splitext(lower)[1]
    if lower in _ALSO_BESIDE or suffix in _BESIDE:
        return None
    if lower in _BY_NAME:
        return _BY_NAME[lower]
    for ending, library in _GUESSES:
        if suffix == ending:
            return f"it does not begin as a model of {library} does, the only ones read under this ending"
    endings = ", ".join(f"'{one}'" for one in SUFFIXES)
    return _BY_SUFFIX.get(suffix, f"no model is known by this name; models end in {endings}")
