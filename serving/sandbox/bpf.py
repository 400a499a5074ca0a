"""An assembler for seccomp's filters: programs of classic BPF that judge one system call.

The format is that of linux/filter.h and linux/seccomp.h. An instruction has eight bytes. A program reads ``struct
seccomp_data`` (number, architecture, instruction pointer, six arguments of 64 bits) and ends by returning a verdict. A
condition is a piece of code that refuses the call if the condition is false, and otherwise continues after its end.
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


def assemble_filter(architecture: int, calls: Iterable[tuple[int, Code]], otherwise: Code) -> Code:
    """Return a filter: the code of `calls` by their numbers, and `otherwise` for all other numbers.

    The filter kills a process that calls as on another architecture, where numbers mean other calls. It refuses the
    numbers of x32, which x86_64 has beside its own.
    """
    code = [
        _load(_AT_ARCHITECTURE),
        _encode_jump(_EQUALS, architecture, 1, 0),
        end_with(KILL_PROCESS),
        _load(_AT_NUMBER),
        *match_at_least(_X32_BIT, end_with(REFUSE)),
    ]
    for number, then in calls:
        code += [_encode_jump(_EQUALS, number, 0, len(then)), *then]
    return code + otherwise


def end_with(value: int) -> bytes:
    """Return the instruction that ends the program with `value`."""
    return _encode_instruction(_RETURN, value)


def match_at_least(number: int, then: bytes) -> Code:
    """Return code that runs one instruction for calls with this number or a larger one."""
    return [_encode_jump(_AT_LEAST, number, 0, 1), then]


def match_equal(numbers: Iterable[int], then: bytes) -> Code:
    """Return code that runs one instruction for calls with these numbers."""
    return [part for number in numbers for part in (_encode_jump(_EQUALS, number, 0, 1), then)]


def require_values(argument: int, values: Collection[int]) -> Code:
    """Require that the low 32 bits of an argument are one of `values`. The kernel reads only these bits of an int."""
    checks = [_encode_jump(_EQUALS, value, len(values) - place, 0) for place, value in enumerate(sorted(values))]
    return [_load_argument(argument), *checks, end_with(REFUSE)]


def require_null(argument: int) -> Code:
    """Require that an argument is a null pointer."""
    high = _load(_AT_ARGUMENTS + 8 * argument + 4)
    return [
        _load_argument(argument),
        _encode_jump(_EQUALS, 0, 0, 2),
        high,
        _encode_jump(_EQUALS, 0, 1, 0),
        end_with(REFUSE),
    ]


def require_values_if_bits(argument: int, bits: int, mask: int, values: Collection[int]) -> Code:
    """Require that an argument has none of `bits`, or that its bits in `mask` are one of `values`."""
    checks = [_encode_jump(_EQUALS, value, len(values) - place, 0) for place, value in enumerate(sorted(values))]
    rest = [_encode_instruction(_AND, mask), *checks, end_with(REFUSE)]
    return [_load_argument(argument), _encode_jump(_HAS_BITS, bits, 0, len(rest)), *rest]


def _load(offset: int) -> bytes:
    return _encode_instruction(_LOAD, offset)


def _load_argument(place: int) -> bytes:
    return _load(_AT_ARGUMENTS + 8 * place)


def _encode_jump(test: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", test, if_true, if_false, value)


def _encode_instruction(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value)
