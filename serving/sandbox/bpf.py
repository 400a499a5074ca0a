"""An assembler for seccomp's filters: programs of classic BPF over one system call.

The format is that of linux/filter.h and linux/seccomp.h: eight bytes for an instruction, which reads ``struct
seccomp_data`` (number, architecture, instruction pointer, six arguments of 64 bits) and ends by returning a verdict. A
condition is a piece of code that goes on after its end when it holds, and refuses the call when it does not.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterable

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
REFUSE = 0x00050000 | errno.EPERM
NO_SUCH_CALL = 0x00050000 | errno.ENOSYS

Code = list[bytes]

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUALS, _AT_LEAST, _HAS_BITS = 0x15, 0x35, 0x45
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16
_X32_BIT = 0x40000000


def program(architecture: int, calls: Iterable[tuple[int, Code]], otherwise: Code) -> Code:
    """Return a filter: the code of `calls` by their numbers, and `otherwise` for all other numbers.

    A process that calls in the manner of another architecture, where numbers mean other calls, is killed. The numbers
    of x32, which x86_64 has beside its own, are refused.
    """
    code = [
        _load(_AT_ARCHITECTURE),
        _jump(_EQUALS, architecture, 1, 0),
        verdict(KILL_PROCESS),
        _load(_AT_NUMBER),
        *when_at_least(_X32_BIT, verdict(REFUSE)),
    ]
    for number, then in calls:
        code += [_jump(_EQUALS, number, 0, len(then)), *then]
    return code + otherwise


def verdict(value: int) -> bytes:
    """End the program with `value`."""
    return _instruction(_RETURN, value)


def when_at_least(number: int, then: bytes) -> Code:
    """Run one instruction for this number of a call and all above."""
    return [_jump(_AT_LEAST, number, 0, 1), then]


def when_equal(numbers: Iterable[int], then: bytes) -> Code:
    """Run one instruction for these numbers of calls."""
    return [part for number in numbers for part in (_jump(_EQUALS, number, 0, 1), then)]


def only(argument: int, values: Collection[int]) -> Code:
    """Hold when the low 32 bits of an argument, which are all that the kernel reads of an int, are one of `values`."""
    checks = [_jump(_EQUALS, value, len(values) - place, 0) for place, value in enumerate(sorted(values))]
    return [_load_argument(argument), *checks, verdict(REFUSE)]


def only_null(argument: int) -> Code:
    """Hold when an argument is a null pointer."""
    high = _load(_AT_ARGUMENTS + 8 * argument + 4)
    return [_load_argument(argument), _jump(_EQUALS, 0, 0, 2), high, _jump(_EQUALS, 0, 1, 0), verdict(REFUSE)]


def only_if_bits(argument: int, bits: int, mask: int, values: Collection[int]) -> Code:
    """Hold when an argument has none of `bits`, or what `mask` leaves of it is one of `values`."""
    checks = [_jump(_EQUALS, value, len(values) - place, 0) for place, value in enumerate(sorted(values))]
    rest = [_instruction(_AND, mask), *checks, verdict(REFUSE)]
    return [_load_argument(argument), _jump(_HAS_BITS, bits, 0, len(rest)), *rest]


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, offset)


def _load_argument(place: int) -> bytes:
    return _load(_AT_ARGUMENTS + 8 * place)


def _jump(test: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", test, if_true, if_false, value)


def _instruction(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value)
