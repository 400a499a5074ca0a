"""The sandbox of a host: what it starts with, and the layers put around it before it touches a file.

Each layer is tried, and what cannot be had is said: `Sandbox` goes with the report of every candidate.
"""

from serving.sandbox.audit import watch
from serving.sandbox.layers import enter, forbid_processes, libraries
from serving.sandbox.process import (
    close_all_but,
    die_with_parent,
    give_back_memory,
    live_in,
    lower_priority_of_this_thread,
    scrub,
    silence_output,
)

__all__ = [
    "close_all_but",
    "die_with_parent",
    "enter",
    "forbid_processes",
    "give_back_memory",
    "libraries",
    "live_in",
    "lower_priority_of_this_thread",
    "scrub",
    "silence_output",
    "watch",
]
