"""What the server and a zygote say to each other: fixed structs over a Unix stream socket.

to the zygote     op u8, host id u64,               SPAWN (with descriptors: socket, arena, socket ...), DESCRIPTORS
                  replicas u16, slots u16           (the first of those of the next SPAWN, where one message cannot have
                                                    all of them), or KILL; replicas and slots are 0 but for SPAWN
from the zygote   op u8, host id u64, value i64     THREAD (thread id): there is one besides the main thread
                                                    READY (wire version as host id, its own pid)
                                                    STARTED (pid, with a descriptor of the process)
                                                    STARTED_UNSEEN (pid, where there are no such descriptors)
                                                    NOT_STARTED (errno)
                                                    EXITED (return code, -n for signal n)

The descriptors of a host come in pairs, a socket and an arena: first those of its lifeline, then those of the slots of
each replica, one replica after another. See :mod:`serving.host.serve_channels`.
"""

from __future__ import annotations

import struct
from enum import IntEnum

COMMAND = struct.Struct("<BQHH")
EVENT = struct.Struct("<BQq")
# the kernel takes at most 253 descriptors with one message
MOST_DESCRIPTORS = 240
# a host may have 512 descriptors, and needs some for its files
MOST_CHANNELS = 192


class Op(IntEnum):
    """What a message between the server and a zygote says."""

    SPAWN = 1
    KILL = 2
    DESCRIPTORS = 3
    READY = 10
    STARTED = 11
    EXITED = 12
    STARTED_UNSEEN = 13
    NOT_STARTED = 14
    THREAD = 15


def count_descriptors(replicas: int, slots: int) -> int:
    """Return how many descriptors a host gets."""
    return 2 * (1 + replicas * slots)
