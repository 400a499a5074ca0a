"""Names the points along the road at which the test suite may cause a failure.

Nothing in this package arms a point, and no setting or environment variable can: the tests start servers through an
entry point of their own, which can. A point without an error has no failure of its own to imitate: there a test kills
the process or makes it wait.

listing             the store is about to be listed; OSError
event               the watcher's thread was told of a change; every error ends that thread
before-staging      a version is about to be copied; OSError
cache-write         a file in the cache is written but not yet durable, and has no name yet; OSError
staged              a verified copy is in the cache, the reconciler has not heard of it
host-spawned        a host exists and has no request yet
evaluated           a host has said what it found
evaluation-kept     ... and the cache holds it
before-activation   the policy has chosen a version, the active reference has not changed
activated           it has changed, and nothing durable says so yet
draining            a version is out of the active reference, its leases may last
retired             its host or graphs are gone
state-write         a transaction is about to be committed; sqlite3.Error
state-migrated      one step to another schema is done, other steps and the commit may follow; sqlite3.Error
state-copy          a copy of the state is written and checked, and has no name yet; OSError
state-replaced      a damaged state is kept aside, the file that replaces it has no name yet; OSError
respawn             a servable's host is about to be replaced
rollout-begun       requests are shared with a new version, nothing durable may say so yet
rollout-stepped     ... and it has a larger share
rollout-failed      a new version has been judged worse, and nothing was done yet
rolled-back         it is in quarantine, and the active reference still names it
upload-begun        there is a directory for an upload, and nothing in it
upload-write        bytes of an upload are about to be written; OSError
upload-received     its whole body is on disk, and nothing was checked
upload-checked      every gate has passed it
before-publication  a version is about to be renamed into place; OSError
upload-published    it is in place, and nobody was told
record-write        lines are about to be appended to a file of records; OSError

With several workers, in the supervisor and in the worker (those are the ones that name one worker):

worker-forked       a worker exists and was told nothing
worker-loaded       a worker has loaded a version, and has not said so
worker-prepared     ... has prepared a plan, and has not said so
workers-prepared    every worker has said so, and the plan is not committed
workers-committed   it is, and no worker was told
worker-told         a worker was told, and its own reference has not changed
worker-draining     a worker is about to free a version
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, get_args

Point = Literal[
    "listing",
    "event",
    "before-staging",
    "cache-write",
    "staged",
    "host-spawned",
    "evaluated",
    "evaluation-kept",
    "before-activation",
    "activated",
    "draining",
    "retired",
    "state-write",
    "state-migrated",
    "state-copy",
    "state-replaced",
    "respawn",
    "rollout-begun",
    "rollout-stepped",
    "rollout-failed",
    "rolled-back",
    "upload-begun",
    "upload-write",
    "upload-received",
    "upload-checked",
    "before-publication",
    "upload-published",
    "record-write",
    "worker-forked",
    "worker-loaded",
    "worker-prepared",
    "workers-prepared",
    "workers-committed",
    "worker-told",
    "worker-draining",
]
POINTS: Final[tuple[Point, ...]] = get_args(Point)

_actions: dict[Point, Callable[[], None]] = {}


def reach(point: Point) -> None:
    """Run the action of an armed `point`, in the thread that has reached it; else this is one lookup in a dict."""
    action = _actions.get(point)
    if action is not None:
        action()


def arm(point: Point, action: Callable[[], None] | None) -> None:
    """Run `action` whenever `point` is reached; None disarms the point. For tests only; any thread."""
    if action is None:
        _actions.pop(point, None)
    else:
        _actions[point] = action
