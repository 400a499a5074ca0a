"""An interpreter for pickles that only builds what models are made of.

An allow-list of names alone is not enough. These are the rules beside it:

1. A global is allowed by its exact module and name, without a dot in the name. A name that may be mentioned may not be
   called for that reason.
2. REDUCE calls a fixed set of functions. Among the arguments, a class or function is refused unless the list has it for
   this function. Arguments are checked where the function allocates memory or is known to be misused.
3. NEWOBJ instantiates listed classes, without arguments except the fields of a named tuple. INST, OBJ, NEWOBJ_EX, EXT*,
   PERSID, BINPERSID, NEXT_BUFFER and READONLY_BUFFER are refused: no pickle of today's protocols needs them.
4. BUILD sets the state of an object that this file made, once, and never of a class, function or module. Compiled code
   that allocated memory for a first state would copy a second one over its end. No attribute has a dunder name or the
   name of a method. The state of an array may only follow NumPy's own constructor. The state of a dtype must give the
   dtype that NumPy itself makes of the description, with the same size: a forged dtype turns bytes into pointers.
5. APPEND, SETITEM and ADDITEMS work on lists, dicts and sets only. A dict whose items are also attributes (a Bunch) has
   no item with a dunder name, because NumPy would look it up and take the value for an address.
6. Arrays are checked before they are allocated. This class also reads the object arrays inside a file.
7. The model data of XGBoost and LightGBM is checked before these libraries read it (`sound.booster_states`).
8. Tuples and arrays have a limited depth: C code would overflow its stack (`nesting`).
9. No object of pandas or pyarrow is made: a column becomes an array of its values (`pandas_parts`). Only what a trusted
   class is given becomes a real object again, made by the constructors of pandas from these values.

joblib's reader is the base class, because a joblib file has the bytes of arrays between the opcodes.
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

from serving.host.restricted.allow_list import ANY_TRUST, AllowList, Distrusted, Global, Unlisted, find_current_name
from serving.host.restricted.array_rules import (
    check_array_state,
    check_dtype,
    check_dtype_state,
    check_wrapper,
    read_array,
)
from serving.host.restricted.attribute_names import (
    RANDOM,
    check_attribute_names,
    check_partial_state,
    check_random_state,
    is_dunder,
)
from serving.host.restricted.call_rules import are_usual_arguments, list_innermost_values
from serving.host.restricted.fitting_only import (
    CALLBACKS,
    METHOD_GETTER,
    StandIn,
    check_stand_in_state,
    find_stand_in,
    is_method_of_stand_in,
    is_stand_in_class,
)
from serving.host.restricted.joblib_files import ALIGNS_ARRAYS, choose_reader_options, make_wrapper
from serving.host.restricted.nesting import Nesting
from serving.host.restricted.pandas_parts import PandasReader, find_part, find_table_part
from serving.host.restricted.pandas_tables import PandasBlock, PandasTable
from serving.host.restricted.pandas_values import VALUES, PandasGlobal, PandasPart
from serving.host.restricted.sound.booster_states import find_state_problem

MOST_NESTED = 64
# modules that run programs, open files and connections, or load more code
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
    *(PandasGlobal, PandasTable, PandasBlock, *VALUES),
)
# the lists have the names of NumPy 2
_NUMPY_2 = "numpy._core."
_IS_NUMPY_1 = int(np.__version__.split(".")[0]) < 2
_PLAIN_DICTS = (dict, OrderedDict, defaultdict)
# functions that make an object without its content. The state that follows brings the content: without it, compiled
# code would read memory that is not there
_MADE_WITHOUT_CONTENT = frozenset(
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
        self, filename: str, file: Any, allowed: AllowList, *, mmap_mode: str | None = None, depth: int = 0
    ) -> None:
        super().__init__(filename, file, **choose_reader_options(mmap_mode))
        self._allowed = allowed
        self._depth = depth
        self._names: dict[int, Global] = {}
        # by id: objects without their content yet, and objects with their state; kept so that no id is used twice
        self._without_content: dict[int, Any] = {}
        self._with_state: dict[int, Any] = {}
        self._checked_dtypes: dict[int, np.dtype[Any]] = {}
        self._nesting = Nesting()
        self._pandas = PandasReader(makes_objects=bool(allowed.trusted))

    def load(self) -> Any:
        """Return the object in the file."""
        found = super().load()
        if self._without_content:
            kind = type(next(iter(self._without_content.values()))).__name__
            raise Distrusted(f"the file leaves a {kind} without its state; {ANY_TRUST}")
        return found

    # --- 1. globals ---------------------------------------------------------------------------------------------------

    def find_class(self, module: str, name: str) -> Any:
        """Return a listed class or function; raises Distrusted for every other."""
        asked = find_current_name(module, name, self.proto)
        is_known = asked in self._allowed.values or asked in self._allowed.trusted
        if "." in name:
            raise Unlisted(f"the file names {name[:200]} inside of {module[:200]}, which no model does; {ANY_TRUST}")
        if not is_known and (instead := find_stand_in(asked)) is not None:
            return instead
        if not is_known and (part := find_part(asked)) is not None:
            return part
        if not is_known and self._allowed.trusted and (table_part := find_table_part(asked)) is not None:
            return table_part
        if not is_known:
            raise Unlisted(_explain_unlisted_name(module, name))
        found = _find_attribute(*asked)
        self._names[id(found)] = asked
        return found

    # --- 2. calls -----------------------------------------------------------------------------------------------------

    def load_reduce(self) -> None:
        """Call a function that the list allows a file to call."""
        arguments = self.stack.pop()
        function = self.stack[-1]
        if isinstance(function, PandasGlobal):
            self.stack[-1] = self._pandas.call(function, arguments, len(self.memo))
            return
        if function is find_stand_in(METHOD_GETTER):
            if not is_method_of_stand_in(arguments):
                raise Distrusted(_explain_unlisted_name(*METHOD_GETTER))
            self.stack[-1] = arguments[0]
            return
        name = self._names.get(id(function))
        if name is None or type(arguments) is not tuple:
            raise Distrusted(f"the file calls something that is no listed function; {ANY_TRUST}")
        if name not in self._allowed.trusted:
            classes = self._allowed.called.get(name)
            if classes is None:
                raise Distrusted(f"the file calls {_format_name(name)}, which may be named but not called; {ANY_TRUST}")
            self._check_arguments(name, arguments, classes)
        else:
            arguments = self._pandas.restore(arguments)
        self.stack[-1] = made = function(*arguments)
        if isinstance(made, np.dtype):
            check_dtype(made)
        elif name in _MADE_WITHOUT_CONTENT:
            self._without_content[id(made)] = made

    def _check_arguments(self, name: Global, arguments: tuple[Any, ...], classes: frozenset[Global]) -> None:
        for value in list_innermost_values(arguments):
            if callable(value) and self._names.get(id(value)) not in classes:
                raise Distrusted(
                    f"the file calls {_format_name(name)} with a class or function as argument; {ANY_TRUST}"
                )
        if not are_usual_arguments(name, arguments):
            raise Distrusted(f"the file calls {_format_name(name)} with arguments no model has; {ANY_TRUST}")

    # --- 3. instances -------------------------------------------------------------------------------------------------

    def load_newobj(self) -> None:
        """Instantiate a listed class."""
        arguments = self.stack.pop()
        kind = self.stack.pop()
        if isinstance(kind, PandasGlobal):
            self.append(self._pandas.start(kind, arguments, len(self.memo)))
            return
        if is_stand_in_class(kind) and (not arguments or kind.full_name.startswith(CALLBACKS)):
            self.append(kind())
            return
        name = self._names.get(id(kind))
        is_trusted = name in self._allowed.trusted
        if not isinstance(kind, type) or name is None or not (is_trusted or name in self._allowed.created):
            what = _format_name(name) if name else "something that is no listed class"
            raise Distrusted(f"the file makes an object of {what}; {ANY_TRUST}")
        if arguments and not (is_trusted or issubclass(kind, tuple)):  # a named tuple gets its fields from them
            raise Distrusted(f"the file makes an object of {_format_name(name)} with arguments; {ANY_TRUST}")
        if is_trusted:
            arguments = self._pandas.restore(arguments)
        made = kind.__new__(kind, *arguments)
        self._nesting.note(made, arguments)
        self.append(made)

    # --- 4. state, 6. arrays ------------------------------------------------------------------------------------------

    def load_build(self) -> None:
        """Set the state of an object that this file made. joblib's array wrappers become their arrays."""
        state, target = self.stack[-1], self.stack[-2]
        if isinstance(target, PandasPart):
            self.stack[-2:] = [made := self._pandas.finish(target, state)]
            self._pandas.replace(target, made, self.memo)
            return
        if isinstance(target, _NO_STATE) or id(target) in self._names:
            raise Distrusted(f"the file sets the state of a class, function or module; {ANY_TRUST}")
        if id(target) in self._with_state:
            raise Distrusted(f"the file sets the state of one {type(target).__name__} twice; {ANY_TRUST}")
        self._with_state[id(target)] = target
        lacked_content = self._without_content.pop(id(target), None) is not None
        if isinstance(target, np.ndarray) and not lacked_content:
            raise Distrusted(f"the file gives an array another content; {ANY_TRUST}")
        if self._names.get(id(type(target))) in self._allowed.trusted:
            self.stack[-1] = state = self._pandas.restore(state)
        self._check_state(target, state)
        what = find_state_problem(type(target), state)
        if what is not None:
            raise Distrusted(f"the file holds a {type(target).__name__} that is not sound: {what}; write it anew")
        super(NumpyUnpickler, self).load_build()
        if isinstance(target, NumpyArrayWrapper):
            self.stack[-1] = self._read_array(vars(target))

    def _check_state(self, target: Any, state: Any) -> None:
        if isinstance(target, StandIn):
            check_stand_in_state(state)
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
            check_attribute_names(target, state)

    def _read_array(self, parts: dict[str, Any]) -> NDArray[Any]:
        """Return the array whose bytes follow in the file, if they are as many as its wrapper, `parts`, says."""
        size = check_wrapper(parts, self._checked_dtypes)
        if parts["dtype"].hasobject:
            return self._read_nested_array()
        self.file_handle.expect(size)
        alignment = parts.get("numpy_array_alignment_bytes")
        is_mapped = self.mmap_mode is not None and parts.get("allow_mmap") is True
        if not is_mapped or (alignment is not None and not ALIGNS_ARRAYS):
            return read_array(self.file_handle, parts["dtype"], parts["shape"], parts["order"], alignment is not None)
        # a new wrapper: attributes of the file's own wrapper may replace its methods
        wrapper = make_wrapper(parts["shape"], parts["order"], parts["dtype"], alignment, allow_mmap=True)
        found: NDArray[Any] = wrapper.read_mmap(self)
        return found

    def _read_nested_array(self) -> NDArray[Any]:
        """Read an array of objects: a pickle inside the pickle."""
        if self._depth >= MOST_NESTED:
            raise Distrusted(f"the file nests object arrays more than {MOST_NESTED} times")
        inner = type(self)(self.filename, self.file_handle, self._allowed, depth=self._depth + 1)
        inner._pandas = self._pandas
        found = inner.load()
        if not isinstance(found, np.ndarray):
            raise Distrusted(f"the file holds something else where an object array should be; {ANY_TRUST}")
        return found

    def load_bytearray8(self) -> None:
        """Push the bytes that the file has. pickle's own reader allocates as many as the file claims to have."""
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(count)))

    # --- 8. tuples ----------------------------------------------------------------------------------------------------

    def _load_and_count(self, load: Callable[[Any], None]) -> None:
        load(self)
        self._nesting.note(self.stack[-1], self.stack[-1])

    def load_tuple(self) -> None:
        """Push a tuple."""
        self._load_and_count(NumpyUnpickler.load_tuple)

    def load_tuple1(self) -> None:
        """Push a tuple of one."""
        self._load_and_count(NumpyUnpickler.load_tuple1)

    def load_tuple2(self) -> None:
        """Push a tuple of two."""
        self._load_and_count(NumpyUnpickler.load_tuple2)

    def load_tuple3(self) -> None:
        """Push a tuple of three."""
        self._load_and_count(NumpyUnpickler.load_tuple3)

    # --- 5. containers ------------------------------------------------------------------------------------------------

    def _fill_container(self, kind: type, load: Callable[[Any], None], target: Any, keys: list[Any]) -> None:
        if not isinstance(target, kind) or type(target).__module__.startswith(
            "scipy."
        ):  # setting an item of a sparse matrix would compute
            raise Distrusted(f"the file adds items to an object of {type(target).__name__}; {ANY_TRUST}")
        if type(target) not in _PLAIN_DICTS and any(map(is_dunder, keys)):
            raise Distrusted(f"the file gives a {type(target).__name__} an item that begins with '__'; {ANY_TRUST}")
        self._pandas.require_not_copied(target)
        load(self)

    def load_append(self) -> None:
        """Append to a list."""
        self._fill_container(list, NumpyUnpickler.load_append, self.stack[-2], [])

    def load_appends(self) -> None:
        """Append to a list."""
        self._fill_container(list, NumpyUnpickler.load_appends, self.metastack[-1][-1], [])

    def load_setitem(self) -> None:
        """Set an item of a dict."""
        self._fill_container(dict, NumpyUnpickler.load_setitem, self.stack[-3], [self.stack[-2]])

    def load_setitems(self) -> None:
        """Set items of a dict."""
        self._fill_container(dict, NumpyUnpickler.load_setitems, self.metastack[-1][-1], self.stack[::2])

    def load_additems(self) -> None:
        """Add to a set."""
        self._fill_container(set, NumpyUnpickler.load_additems, self.metastack[-1][-1], [])

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


def _make_refusal(name: str) -> Callable[[Any], None]:
    def refuse(_: Any) -> None:
        raise Distrusted(f"the file uses the opcode {name}, which no model needs; {ANY_TRUST}")

    return refuse


RestrictedUnpickler.dispatch.update({getattr(pickle, name)[0]: _make_refusal(name) for name in _REFUSED_OPCODES})


def _find_attribute(module: str, name: str) -> Any:
    if _IS_NUMPY_1 and module.startswith(_NUMPY_2):
        module = "numpy.core." + module.removeprefix(_NUMPY_2)
    __import__(module)
    try:
        return getattr(sys.modules[module], name)
    except AttributeError:
        raise Distrusted(f"the file names {module}.{name}, which the libraries here do not have") from None


def _explain_unlisted_name(module: str, name: str) -> str:
    full = f"{module}.{name}"[:200]
    if module == "__main__":
        advice = "put it into a module that is installed here, and name that in security.pickle_trusted"
        return f"the file names a class or function of the script that saved it ({full}): {advice}"
    setting = f'security.pickle_trusted = ["{full}"]'
    if module.partition(".")[0] in ALARMING:
        return f"the file names {full}, which no model needs and an attack would: check where it came from ({setting})"
    return f"the file names {full}, which is not on the list; if you trust it: {setting}"


def _format_name(name: Global | None) -> str:
    return ".".join(name) if name else "an unnamed object"
