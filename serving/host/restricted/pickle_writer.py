"""Writes a pickle opcode by opcode, so that files of other formats are read by the rules for pickles.

The writer makes no objects. The restricted unpickler decides what the pickle may do, when it reads it.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import numpy as np

from serving.host.restricted.allow_list import Global
from serving.host.restricted.joblib_files import make_wrapper

_PROTOCOL = 4
_PROTOCOL_WITHOUT_FRAMES = 3


class PickleWriter:
    """Writes one pickle of one object. `names` has the classes and functions in it."""

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
        """Push None, a number, text, bytes, a dtype or a tuple of these, made by this package."""
        if type(value) in (bytes, bytearray):
            opcode = pickle.BINBYTES8 if type(value) is bytes else pickle.BYTEARRAY8
            self.emit(opcode + struct.pack("<Q", len(value)))
            self.emit(value)
            return
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, _PROTOCOL_WITHOUT_FRAMES)
        pickler.fast = True  # without a memo: its places would collide with those of this writer
        pickler.dump(value)
        self.emit(buffer.getbuffer()[2:-1])  # without the protocol and the end

    def push_global(self, name: Global) -> None:
        """Push a class or function."""
        self.names.add(name)
        for part in name:
            self.push(part)
        self.emit(pickle.STACK_GLOBAL)

    def push_array(self, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> io.BytesIO:
        """Push an array as joblib writes it. Return the file to which the caller writes exactly the array's bytes."""
        self.push(make_wrapper(shape, order, dtype, None))
        return self._file

    def note(self, identity: int) -> None:
        """Put the last object into the memo, so that `repeat` can push it again."""
        place = self._places.setdefault(identity, len(self._places))
        self.emit(pickle.LONG_BINPUT + struct.pack("<I", place))

    def repeat(self, identity: int) -> bool:
        """Push the object that was noted under `identity`; return False if there is none."""
        place = self._places.get(identity)
        if place is not None:
            self.emit(pickle.LONG_BINGET + struct.pack("<I", place))
        return place is not None
