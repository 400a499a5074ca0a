"""An interpreter for pickles that only builds what models are made of.

The rules, each there because an allow-list of names alone can be got around:

1. Globals by exact module and name, without a dot in the name. What may be named may not be called for that.
2. REDUCE calls a fixed set of functions, and no class or function may be among the arguments, but for the classes known
   for each of them. What allocates or is known to be misused has its arguments looked at.
3. NEWOBJ instantiates listed classes, without arguments unless they are a named tuple's fields. INST, OBJ, NEWOBJ_EX,
   EXT*, PERSID, BINPERSID, NEXT_BUFFER and READONLY_BUFFER are refused: no pickle of today's protocols needs them.
4. BUILD sets the state of an object made here, once, never of a class, function or module: code compiled for a first
   state would copy a second one over the end of its memory. No attribute has a dunder name or that of a method. The
   state of an array is set right after NumPy's own constructor only, and a dtype's state must give the dtype that NumPy
   itself makes of its description, as large as before: a forged one turns bytes into pointers.
5. APPEND, SETITEM and ADDITEMS work on lists, dicts and sets only; what is reached by attribute, a Bunch, has no item
   with a dunder name, which NumPy would ask for an address.
6. Arrays are checked before they are allocated; an object array inside is read by this same class.
7. What XGBoost and LightGBM would read for themselves is read first (`sound.booster_states`).
8. Tuples and arrays do not stand in each other at any depth: C code would run out of its stack (`nesting`).
9. Nothing of pandas or pyarrow is made: a column comes to an array of its values (`pandas_parts`).

joblib's reader is the base, because a joblib file holds array bytes between the opcodes.
"""

from __future__ import annotations

import pickle
import struct
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler
from numpy.typing import NDArray

from serving.host.restricted.allow_list import Allowed, Global, current_name
from serving.host.restricted.array_rules import (
    check_array_state,
    check_dtype,
    check_dtype_state,
    check_wrapper,
    read_array,
)
from serving.host.restricted.attribute_names import (
    RANDOM,
    check_attributes,
    check_partial_state,
    check_random_state,
    is_dunder,
)
from serving.host.restricted.call_rules import are_usual, innermost
from serving.host.restricted.distrust import ANY_TRUST, Distrusted, Unlisted
from serving.host.restricted.fitting_only import (
    METHOD,
    WATCHERS,
    Unused,
    check_unused_state,
    is_method_of_unused,
    is_unused_class,
    stand_in,
)
from serving.host.restricted.nesting import Nesting
from serving.host.restricted.pandas_parts import Parts, find_part
from serving.host.restricted.pandas_values import VALUES, Named, Part
from serving.host.restricted.sound.booster_states import problem_of_state

MOST_NESTED = 64
# what runs programs, opens files and connections, or loads more code
ALARMING = frozenset(
    {
        *("os", "posix", "nt", "subprocess", "pty", "sys", "shutil", "socket", "ctypes", "importlib", "runpy", "code"),
        *("builtins", "__builtin__", "pickle", "_pickle", "marshal", "pip", "pdb", "timeit", "webbrowser", "asyncio"),
        *("multiprocessing", "threading", "signal", "urllib", "http", "tempfile", "pathlib", "io", "_io"),
    }
)

_REFUSED_OPCODES = (
    *("INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"),
    *("PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"),
)
_NO_STATE = (
    *(type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, np.ufunc),
    *(Named, *VALUES),
)
_PLAIN_DICTS = (dict, OrderedDict, defaultdict)
# what is made without its content, which its state brings: compiled code would read what is not there
_HOLLOW = frozenset(
    {
        *(("numpy._core.multiarray", "_reconstruct"), ("numpy.ma.core", "_mareconstruct")),
        *(("sklearn.neighbors._kd_tree", "newObj"), ("sklearn.neighbors._ball_tree", "newObj")),
        *(("sklearn.metrics._dist_metrics", "newObj"), ("sklearn.tree._tree", "Tree")),
    }
)


class RestrictedUnpickler(NumpyUnpickler):
    """Reads one object from an open joblib or pickle file; raises Distrusted, or what damage raises. One use."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(NumpyUnpickler.dispatch)

    def __init__(
        self, filename: str, file: Any, allowed: Allowed, *, mmap_mode: str | None = None, depth: int = 0
    ) -> None:
        super().__init__(filename, file, ensure_native_byte_order=mmap_mode is None, mmap_mode=mmap_mode)
        self._allowed = allowed
        self._depth = depth
        self._names: dict[int, Global] = {}
        # by id, kept so that no id comes again: what waits for its content, and what has its state
        self._hollow: dict[int, Any] = {}
        self._built: dict[int, Any] = {}
        self._sound: dict[int, np.dtype[Any]] = {}
        self._nesting = Nesting()
        self._parts = Parts()

    def load(self) -> Any:
        """Return the object in the file."""
        found = super().load()
        if self._hollow:
            kind = type(next(iter(self._hollow.values()))).__name__
            raise Distrusted(f"the file leaves a {kind} without its state; {ANY_TRUST}")
        return found

    # --- 1. globals ---------------------------------------------------------------------------------------------------

    def find_class(self, module: str, name: str) -> Any:
        """Return a listed global; raises Distrusted for every other."""
        asked = current_name(module, name, self.proto)
        is_known = asked in self._allowed.values or asked in self._allowed.trusted
        if "." in name:
            raise Unlisted(f"the file names {name[:200]} inside of {module[:200]}, which no model does; {ANY_TRUST}")
        if not is_known and (instead := stand_in(asked)) is not None:
            return instead
        if not is_known and (part := find_part(asked)) is not None:
            return part
        if not is_known:
            raise Unlisted(_stranger(module, name))
        __import__(asked[0])
        found = _attribute(*asked)
        self._names[id(found)] = asked
        return found

    # --- 2. calls -----------------------------------------------------------------------------------------------------

    def load_reduce(self) -> None:
        """Call what is on the list of what may be called."""
        arguments = self.stack.pop()
        function = self.stack[-1]
        if isinstance(function, Named):
            self.stack[-1] = self._parts.call(function, arguments, len(self.memo))
            return
        if function is stand_in(METHOD):
            if not is_method_of_unused(arguments):
                raise Distrusted(_stranger(*METHOD))
            self.stack[-1] = arguments[0]
            return
        name = self._names.get(id(function))
        if name is None or type(arguments) is not tuple:
            raise Distrusted(f"the file calls something that is no listed function; {ANY_TRUST}")
        if name not in self._allowed.trusted:
            classes = self._allowed.called.get(name)
            if classes is None:
                raise Distrusted(f"the file calls {_said(name)}, which may be named but not called; {ANY_TRUST}")
            self._check_arguments(name, arguments, classes)
        self.stack[-1] = made = function(*arguments)
        if isinstance(made, np.dtype):
            check_dtype(made)
        elif name in _HOLLOW:
            self._hollow[id(made)] = made

    def _check_arguments(self, name: Global, arguments: tuple[Any, ...], classes: frozenset[Global]) -> None:
        for value in innermost(arguments):
            if callable(value) and self._names.get(id(value)) not in classes:
                raise Distrusted(f"the file calls {_said(name)} with a class or function as argument; {ANY_TRUST}")
        if not are_usual(name, arguments):
            raise Distrusted(f"the file calls {_said(name)} with arguments no model has; {ANY_TRUST}")

    # --- 3. instances -------------------------------------------------------------------------------------------------

    def load_newobj(self) -> None:
        """Instantiate a listed class."""
        arguments = self.stack.pop()
        kind = self.stack.pop()
        if isinstance(kind, Named):
            self.append(self._parts.start(kind, arguments, len(self.memo)))
            return
        if is_unused_class(kind) and (not arguments or kind.full_name.startswith(WATCHERS)):
            self.append(kind())
            return
        name = self._names.get(id(kind))
        is_trusted = name in self._allowed.trusted
        if not isinstance(kind, type) or name is None or not (is_trusted or name in self._allowed.created):
            what = _said(name) if name else "something that is no listed class"
            raise Distrusted(f"the file makes an object of {what}; {ANY_TRUST}")
        if arguments and not (is_trusted or issubclass(kind, tuple)):  # a named tuple has its fields from them
            raise Distrusted(f"the file makes an object of {_said(name)} with arguments; {ANY_TRUST}")
        made = kind.__new__(kind, *arguments)
        self._nesting.note(made, arguments)
        self.append(made)

    # --- 4. state, 6. arrays ------------------------------------------------------------------------------------------

    def load_build(self) -> None:
        """Set the state of an object made here; array wrappers become their arrays."""
        state, target = self.stack[-1], self.stack[-2]
        if isinstance(target, Part):
            self.stack[-2:] = [made := self._parts.finish(target, state)]
            self._parts.replace(target, made, self.memo)
            return
        if isinstance(target, _NO_STATE) or id(target) in self._names:
            raise Distrusted(f"the file sets the state of a class, function or module; {ANY_TRUST}")
        if id(target) in self._built:
            raise Distrusted(f"the file sets the state of one {type(target).__name__} twice; {ANY_TRUST}")
        self._built[id(target)] = target
        is_hollow = self._hollow.pop(id(target), None) is not None
        if isinstance(target, np.ndarray) and not is_hollow:
            raise Distrusted(f"the file gives an array another content; {ANY_TRUST}")
        self._check_state(target, state)
        what = problem_of_state(type(target), state)
        if what is not None:
            raise Distrusted(f"the file holds a {type(target).__name__} that is not sound: {what}; write it anew")
        super(NumpyUnpickler, self).load_build()
        if isinstance(target, NumpyArrayWrapper):
            self.stack[-1] = self._read(vars(target))

    def _check_state(self, target: Any, state: Any) -> None:
        if isinstance(target, Unused):
            check_unused_state(state)
            return
        if isinstance(target, np.dtype):
            check_dtype_state(target, state)
        elif isinstance(target, np.ndarray):
            check_array_state(state)
            self._nesting.note(target, state[4] if state[2].hasobject else ())
        elif isinstance(target, partial):
            check_partial_state(target, state)
        elif isinstance(target, (OrderedDict, defaultdict)):
            raise Distrusted(f"the file sets attributes of a dict; {ANY_TRUST}")
        elif isinstance(target, RANDOM):
            check_random_state(state)
        elif self._names.get(id(type(target))) not in self._allowed.trusted:
            check_attributes(target, state)

    def _read(self, parts: dict[str, Any]) -> NDArray[Any]:
        """Return the array whose bytes follow in the file, when there are as many as its wrapper, `parts`, says."""
        size = check_wrapper(parts, self._sound)
        if parts["dtype"].hasobject:
            return self._read_nested()
        self.file_handle.expect(size)
        alignment = parts.get("numpy_array_alignment_bytes")
        if self.mmap_mode is None or parts.get("allow_mmap") is not True:
            return read_array(self.file_handle, parts["dtype"], parts["shape"], parts["order"], alignment is not None)
        # a fresh one: the file's own may carry attributes in the place of methods
        wrapper = NumpyArrayWrapper(
            parts["subclass"], parts["shape"], parts["order"], parts["dtype"], allow_mmap=True,
            numpy_array_alignment_bytes=alignment,
        )  # fmt: skip
        found: NDArray[Any] = wrapper.read(self, self.ensure_native_byte_order)
        return found

    def _read_nested(self) -> NDArray[Any]:
        """Read an object array: a pickle inside the pickle."""
        if self._depth >= MOST_NESTED:
            raise Distrusted(f"the file nests object arrays more than {MOST_NESTED} times")
        inner = type(self)(self.filename, self.file_handle, self._allowed, depth=self._depth + 1)
        inner._parts = self._parts
        found = inner.load()
        if not isinstance(found, np.ndarray):
            raise Distrusted(f"the file holds something else where an object array should be; {ANY_TRUST}")
        return found

    def load_bytearray8(self) -> None:
        """Push as many bytes as there are; pickle's own reader allocates as many as it is told."""
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(count)))

    # --- 8. tuples ----------------------------------------------------------------------------------------------------

    def _count(self, load: Callable[[Any], None]) -> None:
        load(self)
        self._nesting.note(self.stack[-1], self.stack[-1])

    def load_tuple(self) -> None:
        """Push a tuple."""
        self._count(NumpyUnpickler.load_tuple)

    def load_tuple1(self) -> None:
        """Push a tuple of one."""
        self._count(NumpyUnpickler.load_tuple1)

    def load_tuple2(self) -> None:
        """Push a tuple of two."""
        self._count(NumpyUnpickler.load_tuple2)

    def load_tuple3(self) -> None:
        """Push a tuple of three."""
        self._count(NumpyUnpickler.load_tuple3)

    # --- 5. containers ------------------------------------------------------------------------------------------------

    def _fill(self, kind: type, load: Callable[[Any], None], target: Any, keys: list[Any]) -> None:
        if not isinstance(target, kind) or type(target).__module__.startswith("scipy."):  # a matrix computes with them
            raise Distrusted(f"the file adds items to an object of {type(target).__name__}; {ANY_TRUST}")
        if type(target) not in _PLAIN_DICTS and any(map(is_dunder, keys)):
            raise Distrusted(f"the file gives a {type(target).__name__} an item that begins with '__'; {ANY_TRUST}")
        load(self)

    def load_append(self) -> None:
        """Append to a list."""
        self._fill(list, NumpyUnpickler.load_append, self.stack[-2], [])

    def load_appends(self) -> None:
        """Append to a list."""
        self._fill(list, NumpyUnpickler.load_appends, self.metastack[-1][-1], [])

    def load_setitem(self) -> None:
        """Set an item of a dict."""
        self._fill(dict, NumpyUnpickler.load_setitem, self.stack[-3], [self.stack[-2]])

    def load_setitems(self) -> None:
        """Set items of a dict."""
        self._fill(dict, NumpyUnpickler.load_setitems, self.metastack[-1][-1], self.stack[::2])

    def load_additems(self) -> None:
        """Add to a set."""
        self._fill(set, NumpyUnpickler.load_additems, self.metastack[-1][-1], [])

    dispatch[pickle.TUPLE[0]] = load_tuple
    dispatch[pickle.TUPLE1[0]] = load_tuple1
    dispatch[pickle.TUPLE2[0]] = load_tuple2
    dispatch[pickle.TUPLE3[0]] = load_tuple3
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.APPEND[0]] = load_append
    dispatch[pickle.APPENDS[0]] = load_appends
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.ADDITEMS[0]] = load_additems


def _refusal(name: str) -> Callable[[Any], None]:
    def refuse(_: Any) -> None:
        raise Distrusted(f"the file uses the opcode {name}, which no model needs; {ANY_TRUST}")

    return refuse


RestrictedUnpickler.dispatch.update({getattr(pickle, name)[0]: _refusal(name) for name in _REFUSED_OPCODES})


def _attribute(module: str, name: str) -> Any:
    try:
        return getattr(sys.modules[module], name)
    except AttributeError:
        raise Distrusted(f"the file names {module}.{name}, which the libraries here do not have") from None


def _stranger(module: str, name: str) -> str:
    full = f"{module}.{name}"[:200]
    if module == "__main__":
        advice = "put it into a module that is installed here, and name that in security.pickle_trusted"
        return f"the file names a class or function of the script that saved it ({full}): {advice}"
    setting = f'security.pickle_trusted = ["{full}"]'
    if module.partition(".")[0] in ALARMING:
        return f"the file names {full}, which no model needs and an attack would: look where it came from ({setting})"
    return f"the file names {full}, which nobody vouches for; if you do: {setting}"


def _said(name: Global | None) -> str:
    return ".".join(name) if name else "an unnamed object"
