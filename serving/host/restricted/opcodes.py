"""Lists the names in a pickle from its opcodes, without importing, making or calling anything.

A refusal that lists one name only makes its reader try again for each further name; this finds all names at once. It
is an interpreter in which every object is a symbol. It is only exact enough to find the names, and the arrays of
joblib, whose bytes stand between the opcodes. It decides nothing: its result is only used in texts.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass, field
from typing import Any

from serving.host.restricted.allow_list import Global, find_current_name
from serving.host.restricted.array_rules import count_elements
from serving.host.restricted.call_rules import list_innermost_values

# the file is refused in any case: listing its names must not take longer than reading it
MOST_OPCODES = 200_000
MOST_NESTED = 64
_MOST_KEPT_CHARACTERS = 1000
_MOST_ITEMS = 64
_CHUNK_BYTES = 1 << 20
_ARRAY_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_DTYPE = re.compile(r"[biufcmMSUVO]\d{1,9}")
_BYTES_OF_PYTHON_2 = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_MARK = object()
_UNKNOWN = object()


@dataclass(slots=True, eq=False)
class _MadeObject:
    """The symbol for an object that a real unpickler would make: its class or function, arguments and state."""

    maker: Any
    arguments: Any = ()
    state: Any = None


@dataclass(slots=True, eq=False)
class _NamedGlobal:
    """The symbol for a class or function that the file names."""

    name: Global


@dataclass(slots=True)
class Survey:
    """What the opcodes of a file contain. `is_whole` is False if they were not followed to the end of the file.

    `names` are today's names, in the order of the file. `has_bytes_of_python_2` says that the file has texts that only
    Python 2 writes. `sklearn_version` is the scikit-learn that wrote the file. `handles` are the first bytes of the
    models inside XGBoost boosters.
    """

    names: list[Global] = field(default_factory=list)
    sklearn_version: str | None = None
    has_bytes_of_python_2: bool = False
    handles: list[bytes] = field(default_factory=list)
    is_whole: bool = False


def survey_opcodes(file: Any) -> Survey:
    """Return what the joblib or pickle file names that `file` reads; see `reading.survey_file`.

    Never raises for the content of the file. For a damaged file it returns what it found before the damage.
    """
    survey = Survey()
    try:
        _OpcodeReader(file, survey).read_pickle(0)
        survey.is_whole = True
    except Exception:  # noqa: BLE001, S110  (a damaged file may raise anything; what was found before is kept)
        pass
    return survey


class _OpcodeReader:
    """Follows the opcodes of one file. One use."""

    def __init__(self, file: Any, survey: Survey) -> None:
        self._file = file
        self._survey = survey
        self._known: set[Global] = set()
        self._left = MOST_OPCODES

    def read_pickle(self, depth: int) -> None:
        """Follow one pickle to its end, and the pickles inside it."""
        if depth > MOST_NESTED:
            raise ValueError("nested too often")
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        protocol = 0
        while True:
            self._left -= 1
            if self._left < 0:
                raise ValueError("too many opcodes")
            opcode = _OPCODES[self._file.read(1).decode("latin-1")]
            argument: Any = None if opcode.arg is None else opcode.arg.reader(self._file)
            if opcode.name == "STOP":
                return
            if opcode.name == "PROTO":
                protocol = argument
            else:
                self._follow(opcode, argument, stack, memo, protocol)
            if opcode.name == "BUILD" and _is_array_wrapper(stack[-1]):
                self._skip_array(stack[-1].state, depth)

    # --- opcodes ------------------------------------------------------------------------------------------------------

    def _follow(self, opcode: Any, argument: Any, stack: list[Any], memo: dict[int, Any], protocol: int) -> None:
        name = opcode.name
        if name in _BYTES_OF_PYTHON_2:
            self._survey.has_bytes_of_python_2 = True
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("POP", "POP_MARK"):
            _pop(stack, opcode)
        elif name in ("GLOBAL", "INST"):
            _pop(stack, opcode)
            module, _, last = argument.partition(" ")
            stack.append(self._note_name(module, last, protocol))
        elif name == "STACK_GLOBAL":
            module, last = _pop(stack, opcode)
            stack.append(self._note_name(module, last, protocol))
        else:
            self._make_symbol(opcode, argument, stack)

    def _make_symbol(self, opcode: Any, argument: Any, stack: list[Any]) -> None:
        """Push the symbol for the object that an opcode makes."""
        name, taken = opcode.name, _pop(stack, opcode)
        if name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            stack.append(_MadeObject(taken[0], taken[1]))
        elif name == "BUILD":
            target, state = taken
            if isinstance(target, _MadeObject):
                target.state = state
            self._note_state(state)
            stack.append(target)
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"):
            stack.append(tuple(taken))
        elif name in ("EMPTY_DICT", "DICT"):
            stack.append(_add_items({}, taken))
        elif name in ("SETITEM", "SETITEMS"):
            stack.append(_add_items(taken[0], taken[1:]))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            stack.append(taken[0])
        elif opcode.stack_after:
            constant = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None}.get(name, _UNKNOWN)
            stack.append(constant if argument is None else _cut_argument(argument))

    def _note_name(self, module: Any, last: Any, protocol: int) -> _NamedGlobal:
        if not (isinstance(module, str) and isinstance(last, str)):
            raise TypeError("a name that is no text")
        found = find_current_name(module, last, protocol)
        if found not in self._known:
            self._known.add(found)
            self._survey.names.append(found)
        return _NamedGlobal(found)

    def _note_state(self, state: Any) -> None:
        if type(state) is not dict:
            return
        version, handle = state.get("_sklearn_version"), state.get("handle")
        if isinstance(version, str):
            self._survey.sklearn_version = version
        made_of = list_innermost_values(handle.arguments) if isinstance(handle, _MadeObject) else [handle]
        self._survey.handles += [each for each in made_of if isinstance(each, bytes)][:1]

    # --- arrays between the opcodes -----------------------------------------------------------------------------------

    def _skip_array(self, wrapper: dict[str, Any], depth: int) -> None:
        description = wrapper["dtype"].arguments[0]
        if not _DTYPE.fullmatch(description):
            raise ValueError("an array of another kind")
        kind, size = description[0], int(description[1:])
        if kind == "O":
            self.read_pickle(depth + 1)
            return
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self._skip(self._file.read(1)[0])
        count = count_elements(wrapper["shape"])
        if count is None:
            raise ValueError("an array of no shape")
        self._skip(count * size * (4 if kind == "U" else 1))

    def _skip(self, count: int) -> None:
        self._file.expect(count)
        while count:
            read = len(self._file.read(min(count, _CHUNK_BYTES)))
            if not read:
                raise EOFError("it ends within an array")
            count -= read


def _is_array_wrapper(made: Any) -> bool:
    is_wrapper = (
        isinstance(made, _MadeObject) and isinstance(made.maker, _NamedGlobal) and made.maker.name == _ARRAY_WRAPPER
    )
    return is_wrapper and type(made.state) is dict


def _pop(stack: list[Any], opcode: Any) -> list[Any]:
    """Remove and return the operands of the opcode from the stack, in the order of the stack, without the mark."""
    wanted = opcode.stack_before
    if pickletools.markobject not in wanted:
        taken = stack[len(stack) - len(wanted) :] if wanted else []
        if len(taken) < len(wanted):
            raise IndexError("too little on the stack")
        del stack[len(stack) - len(wanted) :]
        return taken
    place = len(stack) - 1
    while stack[place] is not _MARK:
        place -= 1  # raises IndexError if there is no mark
    below = wanted.index(pickletools.markobject)
    taken = stack[place - below : place] + stack[place + 1 :]
    del stack[place - below :]
    return taken


def _add_items(target: Any, taken: list[Any]) -> Any:
    """Add the first items whose keys are texts: the state of an object has few items."""
    if type(target) is dict:
        for key, value in zip(taken[::2], taken[1::2], strict=False):
            if isinstance(key, str) and len(target) < _MOST_ITEMS:
                target[key] = value
    return target


def _cut_argument(argument: Any) -> Any:
    """Return the argument of an opcode, or its beginning, which is enough here."""
    if isinstance(argument, (bytes, bytearray)):
        return bytes(argument[:_MOST_KEPT_CHARACTERS])
    return argument[:_MOST_KEPT_CHARACTERS] if isinstance(argument, str) else argument
