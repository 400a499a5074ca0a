"""A server whose workers learn of a commit by a message only, which takes a while: what the shared word prevents."""

import random
import sys
import time

from serving.cli import main
from serving.plane import active_reference, prediction
from serving.plane.plane import Plane


def read_what_was_told(state):
    return state.active


def commit_late(plane, command, commit=Plane.commit):
    time.sleep(random.uniform(0, 0.05))
    commit(plane, command)


Plane.commit = commit_late
active_reference.read = prediction.read = read_what_was_told

if __name__ == "__main__":
    sys.exit(main())
