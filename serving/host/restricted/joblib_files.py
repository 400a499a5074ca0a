"""Opens files as joblib does, for the versions of joblib from 1.0 on: some of the private names used here are newer."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import IO, Any

import joblib.numpy_pickle_utils
import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler

_HAS_BYTE_ORDER = "ensure_native_byte_order" in inspect.signature(NumpyUnpickler.__init__).parameters
ALIGNS_ARRAYS = "numpy_array_alignment_bytes" in inspect.signature(NumpyArrayWrapper.__init__).parameters


@contextlib.contextmanager
def open_joblib_file(raw: IO[bytes], path: str, mmap_mode: str | None) -> Iterator[tuple[Any, str | None]]:
    """Give a reader of the pickle in an open file, decompressed, and the mode in which arrays may be mapped.

    The reader is `raw` itself for an uncompressed file. For a file of joblib 0.9 it is a text.
    """
    utilities = joblib.numpy_pickle_utils
    if hasattr(utilities, "_validate_fileobject_and_memmap"):  # since joblib 1.5
        with utilities._validate_fileobject_and_memmap(raw, path, mmap_mode) as (file, mode):
            yield file, mode
        return
    with utilities._read_fileobject(raw, path, mmap_mode) as file:
        yield file, mmap_mode if file is raw else None


def choose_reader_options(mmap_mode: str | None) -> dict[str, Any]:
    """Return the arguments of joblib's unpickler besides the file."""
    is_mapped = mmap_mode is not None
    return {"mmap_mode": mmap_mode, **({"ensure_native_byte_order": not is_mapped} if _HAS_BYTE_ORDER else {})}


def make_wrapper(
    shape: tuple[int, ...], order: str, dtype: np.dtype[Any], alignment: int | None, *, allow_mmap: bool = False
) -> NumpyArrayWrapper:
    """Return what stands for an array in a joblib file."""
    wrapper = NumpyArrayWrapper(np.ndarray, shape, order, dtype, allow_mmap=allow_mmap)
    wrapper.numpy_array_alignment_bytes = alignment
    return wrapper
