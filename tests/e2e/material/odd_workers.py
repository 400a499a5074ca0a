"""A server whose workers stop before they begin, as long as a file says so, and are killed by one version of a model.

The latter is what a fault in compiled code does to the process that loads a version.
"""

import os
import signal
import sys
from pathlib import Path

from serving.cli import main
from serving.plane.plane import Plane
from serving.worker.worker_process import WorkerPlan

DEADLY = "666"
STOPS = "workers-stop"


def stop_or_run(plan, index, descriptors, run=WorkerPlan.run):
    if Path(STOPS).exists():
        os.kill(os.getpid(), signal.SIGSTOP)
    return run(plan, index, descriptors)


def load_or_die(plane, command, process=None, load=Plane.load):
    if command.key.version == DEADLY:
        os.kill(os.getpid(), signal.SIGSEGV)
    return load(plane, command, process)


WorkerPlan.run = stop_or_run
Plane.load = load_or_die

if __name__ == "__main__":
    sys.exit(main())
