"""Writes a pickle opcode by opcode, for files of other formats that are read by the rules for pickles.

Nothing is made of what is written. What the pickle may do is decided when it is read, by the restricted unpickler.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper

from serving.host.restricted.allow_list import Global

_PROTOCOL = 4
_PROTOCOL_WITHOUT_FRAMES = 3


class PickleWriter:
    """One pickle of one object. `names` has the globals in it."""

    def __init__(self) -> None:
        self.names: set[Global] = set()
        self._file = io.BytesIO()
        self._places: dict[int, int] = {}
        self.emit(pickle.PROTO + bytes([_PROTOCOL]))

    def finish(self) -> io.BytesIO:
        """Return the whole pickle, open at its beginning."""
        self.emit(pickle.STOP)
        self._file.seek(0)
        return self._file

    def emit(self, opcodes: bytes | memoryview) -> None:
        """Write opcodes as they are."""
        self._file.write(opcodes)

    def push(self, value: Any) -> None:
        """Push a value of this package's own making: None, a number, text, bytes, a dtype, a tuple of these."""
        if type(value) in (bytes, bytearray):
            opcode = pickle.BINBYTES8 if type(value) is bytes else pickle.BYTEARRAY8
            self.emit(opcode + struct.pack("<Q", len(value)))
            self.emit(value)
            return
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, _PROTOCOL_WITHOUT_FRAMES)
        pickler.fast = True  # without a memo, whose places would collide with the ones here
        pickler.dump(value)
        self.emit(buffer.getbuffer()[2:-1])  # without the protocol and the end

    def push_global(self, name: Global) -> None:
        """Push a class or function."""
        self.names.add(name)
        for part in name:
            self.push(part)
        self.emit(pickle.STACK_GLOBAL)

    def push_array(self, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> io.BytesIO:
        """Push an array as joblib writes it, and return the file that takes its bytes, exactly as many as it has."""
        self.push(NumpyArrayWrapper(np.ndarray, shape, order, dtype, numpy_array_alignment_bytes=None))
        return self._file

    def note(self, identity: int) -> None:
        """Keep the object that was pushed last, for `repeat`."""
        place = self._places.setdefault(identity, len(self._places))
        self.emit(pickle.LONG_BINPUT + struct.pack("<I", place))

    def repeat(self, identity: int) -> bool:
        """Push the object that was noted under `identity`; False where there is none."""
        place = self._places.get(identity)
        if place is not None:
            self.emit(pickle.LONG_BINGET + struct.pack("<I", place))
        return place is not None
