"""What the server and a zygote say to each other: fixed structs over a Unix stream socket.

to the zygote     op u8, host id u64                SPAWN (with descriptors: socket, arena, socket ...) or KILL
from the zygote   op u8, host id u64, value i64     THREAD (thread id): there is one besides the main thread
                                                    READY (wire version as host id, its own pid)
                                                    STARTED (pid, with a descriptor of the process)
                                                    STARTED_UNSEEN (pid, where there are no such descriptors)
                                                    NOT_STARTED (errno)
                                                    EXITED (return code, -n for signal n)
"""

from __future__ import annotations

import struct
from enum import IntEnum

COMMAND = struct.Struct("<BQ")
EVENT = struct.Struct("<BQq")
MAX_REPLICAS = 64


class Op(IntEnum):
    """What a message between the server and a zygote says."""

    SPAWN = 1
    KILL = 2
    READY = 10
    STARTED = 11
    EXITED = 12
    STARTED_UNSEEN = 13
    NOT_STARTED = 14
    THREAD = 15
