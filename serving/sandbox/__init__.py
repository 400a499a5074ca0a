"""The sandbox of a host: a clean start, and layers of protection that are put on before it opens a file.

Every layer is tried, and missing ones are reported: `Sandbox` is part of the report of every candidate.
"""

from serving.sandbox.audit import WatchExceptions, watch
from serving.sandbox.layers import enter, find_library_paths, forbid_processes
from serving.sandbox.process import (
    close_all_but,
    die_with_parent,
    give_back_memory,
    lower_priority_of_this_thread,
    move_into,
    scrub_environment,
    silence_output,
)

__all__ = [
    "WatchExceptions",
    "close_all_but",
    "die_with_parent",
    "enter",
    "find_library_paths",
    "forbid_processes",
    "give_back_memory",
    "lower_priority_of_this_thread",
    "move_into",
    "scrub_environment",
    "silence_output",
    "watch",
]
