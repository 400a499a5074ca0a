"""Follows the opcodes of a pickle with symbols in place of objects: nothing is imported, made or called.

Names, texts, whole numbers, tuples and the wanted attributes are exact; every other value is the same symbol. A boosted
model has a million opcodes, so each opcode is one small function in a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from serving.host.restricted.piecewise_file import PiecewiseFile

# the attributes that are looked at, of estimators, boosters and the arrays of joblib; all others are dropped
ATTRIBUTES = frozenset({"_sklearn_version", "handle", "dtype", "shape", "numpy_array_alignment_bytes"})

_UNKNOWN = object()
_INTEGER = re.compile(rb"[+-]?\d{1,18}L?")


class MadeObject:
    """The symbol for an object that a real unpickler would make: its class or function, arguments and state."""

    __slots__ = ("arguments", "maker", "state")

    def __init__(self, maker: Any, arguments: Any) -> None:
        self.maker = maker
        self.arguments = arguments
        self.state: Any = None


class StackMachine:
    """Follows the opcodes of one pickle. `budget` has one item for each opcode that may still follow. One use.

    A subclass says what becomes of names and of states.
    """

    __slots__ = ("budget", "marks", "memo", "protocol", "source", "stack")

    def __init__(self, source: PiecewiseFile, budget: Iterator[int]) -> None:
        self.source, self.budget = source, budget
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.protocol = 0

    def run(self) -> Any:
        """Follow the opcodes up to the end of the pickle, and return the symbol for its object.

        Raises ValueError beyond the budget, and any exception for damage.
        """
        source, follow = self.source, _FOLLOW
        for _ in self.budget:
            at = source.at
            if at == len(source.data):
                source.require(1)
                at = source.at
            source.at = at + 1
            code = source.data[at]
            if code == _STOP:
                return self.stack[-1]
            follow[code](self)
        raise ValueError("too many opcodes")

    def note_name(self, module: Any, name: Any) -> Any:
        """Return the symbol for a class or function that the file names."""
        raise NotImplementedError

    def note_state(self, target: Any, state: Any) -> None:
        """Take note that `target` gets this state."""
        raise NotImplementedError

    def note_bytes_of_python_2(self) -> None:
        """Take note of a text that only Python 2 writes."""
        raise NotImplementedError

    def take_bytes(self, count: int) -> bytes:
        """Return the next `count` bytes of the file, the content of an object, or both ends of it."""
        return self.source.take_ends(count)

    def take_from_mark(self) -> list[Any]:
        """Remove and return what was pushed since the last mark."""
        place = self.marks.pop()
        taken = self.stack[place:]
        del self.stack[place:]
        return taken


# --- values -----------------------------------------------------------------------------------------------------------


def _push_constant(value: Any) -> Callable[[StackMachine], None]:
    return lambda machine: machine.stack.append(value)


def _skip_argument(count: int, *, is_value: bool = True) -> Callable[[StackMachine], None]:
    def follow(machine: StackMachine) -> None:
        machine.source.skip(count)
        if is_value:
            machine.stack.append(_UNKNOWN)

    return follow


def _push_number(count: int) -> Callable[[StackMachine], None]:
    return lambda machine: machine.stack.append(machine.source.take_number(count))


def _push_signed_number(machine: StackMachine) -> None:
    machine.stack.append(int.from_bytes(machine.source.take(4), "little", signed=True))


def _push_long_number(width: int) -> Callable[[StackMachine], None]:
    def follow(machine: StackMachine) -> None:
        count = machine.source.take_number(width)
        raw = machine.source.take_ends(count)
        machine.stack.append(int.from_bytes(raw, "little", signed=True) if count <= 8 else _UNKNOWN)

    return follow


def _push_number_of_line(machine: StackMachine) -> None:
    line = machine.source.take_line()
    machine.stack.append(int(line.rstrip(b"L")) if _INTEGER.fullmatch(line) else _UNKNOWN)


def _push_line(machine: StackMachine) -> None:
    machine.source.take_line()
    machine.stack.append(_UNKNOWN)


def _push_text(width: int) -> Callable[[StackMachine], None]:
    def follow(machine: StackMachine) -> None:
        raw = machine.source.take_ends(machine.source.take_number(width))
        machine.stack.append(raw.decode("utf-8", "replace"))

    return follow


def _push_text_of_line(machine: StackMachine) -> None:
    machine.stack.append(machine.source.take_line().decode("raw-unicode-escape", "replace"))


def _push_bytes(width: int) -> Callable[[StackMachine], None]:
    return lambda machine: machine.stack.append(machine.take_bytes(machine.source.take_number(width)))


def _push_bytes_of_python_2(width: int) -> Callable[[StackMachine], None]:
    def follow(machine: StackMachine) -> None:
        machine.note_bytes_of_python_2()
        line = machine.source.take_ends(machine.source.take_number(width)) if width else machine.source.take_line()
        machine.stack.append((line if width else line.strip(b"'\"")).decode("latin-1"))

    return follow


# --- containers -------------------------------------------------------------------------------------------------------


def _push_dict(machine: StackMachine) -> None:
    machine.stack.append({})


def _push_dict_from_mark(machine: StackMachine) -> None:
    machine.stack.append(_add_items({}, machine.take_from_mark()))


def _push_unknown_from_mark(machine: StackMachine) -> None:
    machine.take_from_mark()
    machine.stack.append(_UNKNOWN)


def _push_tuple_from_mark(machine: StackMachine) -> None:
    machine.stack.append(tuple(machine.take_from_mark()))


def _push_tuple(count: int) -> Callable[[StackMachine], None]:
    def follow(machine: StackMachine) -> None:
        stack = machine.stack
        if len(stack) < count:
            raise IndexError("too little on the stack")
        stack[-count:] = [tuple(stack[-count:])]

    return follow


def _set_item(machine: StackMachine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _add_items(machine.stack[-1], [key, value])


def _set_items(machine: StackMachine) -> None:
    taken = machine.take_from_mark()
    _add_items(machine.stack[-1], taken)


def _drop_from_mark(machine: StackMachine) -> None:
    machine.take_from_mark()


def _add_items(target: Any, taken: list[Any]) -> Any:
    """Add the wanted attributes among these keys and values to a dict; return it."""
    if type(target) is dict:
        for place in range(0, len(taken) - 1, 2):
            key = taken[place]
            if type(key) is str and key in ATTRIBUTES:
                target[key] = taken[place + 1]
    return target


# --- the stack and the memo -------------------------------------------------------------------------------------------


def _set_mark(machine: StackMachine) -> None:
    machine.marks.append(len(machine.stack))


def _pop(machine: StackMachine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _pop_value(machine: StackMachine) -> None:
    machine.stack.pop()


def _repeat_last(machine: StackMachine) -> None:
    machine.stack.append(machine.stack[-1])


def _replace_by_unknown(machine: StackMachine) -> None:
    machine.stack[-1] = _UNKNOWN


def _remember_next(machine: StackMachine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _remember(width: int) -> Callable[[StackMachine], None]:
    def follow(machine: StackMachine) -> None:
        place = machine.source.take_number(width) if width else int(machine.source.take_line())
        machine.memo[place] = machine.stack[-1]

    return follow


def _recall_short(machine: StackMachine) -> None:
    machine.stack.append(machine.memo[machine.source.take_byte()])


def _push_byte(machine: StackMachine) -> None:
    machine.stack.append(machine.source.take_byte())


def _recall(width: int) -> Callable[[StackMachine], None]:
    def follow(machine: StackMachine) -> None:
        place = machine.source.take_number(width) if width else int(machine.source.take_line())
        machine.stack.append(machine.memo[place])

    return follow


# --- names and objects ------------------------------------------------------------------------------------------------


def _read_protocol(machine: StackMachine) -> None:
    machine.protocol = machine.source.take_number(1)


def _push_name(machine: StackMachine) -> None:
    module, name = (machine.source.take_line().decode("utf-8") for _ in range(2))
    machine.stack.append(machine.note_name(module, name))


def _push_name_of_texts(machine: StackMachine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.note_name(module, name))


def _make_instance(machine: StackMachine) -> None:
    module, name = (machine.source.take_line().decode("utf-8") for _ in range(2))
    machine.stack.append(MadeObject(machine.note_name(module, name), tuple(machine.take_from_mark())))


def _make_object_from_mark(machine: StackMachine) -> None:
    maker, *arguments = machine.take_from_mark()
    machine.stack.append(MadeObject(maker, tuple(arguments)))


def _make_object(machine: StackMachine) -> None:
    arguments = machine.stack.pop()
    machine.stack[-1] = MadeObject(machine.stack[-1], arguments)


def _make_object_with_keywords(machine: StackMachine) -> None:
    machine.stack.pop()
    _make_object(machine)


def _set_state(machine: StackMachine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if type(target) is MadeObject:
        target.state = state
    machine.note_state(target, state)


_STOP = ord(".")
_FOLLOW: dict[int, Callable[[StackMachine], None]] = {
    code[0]: follow
    for code, follow in {
        # values
        b"N": _push_constant(None),
        b"\x88": _push_constant(True),
        b"\x89": _push_constant(False),
        b"I": _push_number_of_line,
        b"L": _push_number_of_line,
        b"J": _push_signed_number,
        b"K": _push_byte,
        b"M": _push_number(2),
        b"\x8a": _push_long_number(1),
        b"\x8b": _push_long_number(4),
        b"F": _push_line,
        b"G": _skip_argument(8),
        b"S": _push_bytes_of_python_2(0),
        b"T": _push_bytes_of_python_2(4),
        b"U": _push_bytes_of_python_2(1),
        b"V": _push_text_of_line,
        b"X": _push_text(4),
        b"\x8c": _push_text(1),
        b"\x8d": _push_text(8),
        b"B": _push_bytes(4),
        b"C": _push_bytes(1),
        b"\x8e": _push_bytes(8),
        b"\x96": _push_bytes(8),
        b"\x97": _push_constant(_UNKNOWN),  # a buffer beside the file
        b"\x98": lambda _: None,
        # containers
        b"]": _push_constant(_UNKNOWN),
        b"\x8f": _push_constant(_UNKNOWN),
        b"}": _push_dict,
        b")": _push_constant(()),
        b"d": _push_dict_from_mark,
        b"l": _push_unknown_from_mark,
        b"\x91": _push_unknown_from_mark,
        b"t": _push_tuple_from_mark,
        b"\x85": _push_tuple(1),
        b"\x86": _push_tuple(2),
        b"\x87": _push_tuple(3),
        b"s": _set_item,
        b"u": _set_items,
        b"a": _pop_value,
        b"e": _drop_from_mark,
        b"\x90": _drop_from_mark,
        # the stack and the memo
        b"(": _set_mark,
        b"0": _pop,
        b"1": _drop_from_mark,
        b"2": _repeat_last,
        b"\x94": _remember_next,
        b"p": _remember(0),
        b"q": _remember(1),
        b"r": _remember(4),
        b"g": _recall(0),
        b"h": _recall_short,
        b"j": _recall(4),
        # names and objects
        b"\x80": _read_protocol,
        b"\x95": _skip_argument(8, is_value=False),
        b"c": _push_name,
        b"\x93": _push_name_of_texts,
        b"i": _make_instance,
        b"o": _make_object_from_mark,
        b"R": _make_object,
        b"\x81": _make_object,
        b"\x92": _make_object_with_keywords,
        b"b": _set_state,
        b"P": _push_line,
        b"Q": _replace_by_unknown,
        b"\x82": _skip_argument(1),
        b"\x83": _skip_argument(2),
        b"\x84": _skip_argument(4),
    }.items()
}
