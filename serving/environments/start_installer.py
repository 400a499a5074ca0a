"""Starts a program that must not outlive the command that wants it: ``python -m ... PID PROGRAM ARGUMENT...``.

PID is the process of the command. When that is killed, the program is, too: it would go on writing into an environment
that the next command makes anew.
"""

from __future__ import annotations

import os
import sys

from serving.sandbox.process import die_with_parent


def main() -> None:
    """Become the program."""
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (the command's own list of arguments, no shell)


if __name__ == "__main__":
    main()
