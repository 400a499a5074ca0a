"""A server whose workers are killed by version 2 of a model when they load it, as by a fault in compiled code."""

import os
import signal
import sys

from serving.cli import main
from serving.plane.plane import Plane


def load_or_die(plane, command, process=None, load=Plane.load):
    if command.key.version == "2":
        os.kill(os.getpid(), signal.SIGSEGV)
    return load(plane, command, process)


Plane.load = load_or_die

if __name__ == "__main__":
    sys.exit(main())
