"""Decide whether the workers have memory for one more compiled form.

A worker cannot share a form with another: onnxruntime copies the graph into structures of its own, with addresses of
that process in them. So each worker has a copy, and all of them together have a budget.

A model counts once for its active version and once for each standby that it may have. So whether a version is compiled
does not depend on which of its predecessors are loaded now: a model would flip between compiled and hosted otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.domain.version import VersionId

HOST_BYTES = 16 << 20
MB = 1 << 20


@dataclass(frozen=True, slots=True)
class GraphBudget:
    """The most bytes that the forms of all models may take in `workers` processes, with `standbys` for each model.

    `HOST_BYTES` is what a host takes beside its model. A form whose copies take less than that is always compiled: to
    host it would take more.
    """

    total_bytes: int
    workers: int
    standbys: int

    def why_no_room(self, key: VersionId, session_bytes: int, loaded: Mapping[VersionId, int]) -> str | None:
        """Say why a form that takes `session_bytes` in each worker stays hosted, None when it may be compiled.

        `loaded` has the same size of each version that is loaded now. Of several versions of a model the largest
        counts; of the model of `key`, only the new one.
        """
        if session_bytes * self.workers <= HOST_BYTES:
            return None
        largest: dict[str, int] = {}
        for each, size in loaded.items():
            if each.model != key.model:
                largest[each.model] = max(size, largest.get(each.model, 0))
        copies = self.workers * (1 + self.standbys)
        needed, taken = session_bytes * copies, sum(largest.values()) * copies
        if needed + taken <= self.total_bytes:
            return None
        standbys = f", and as much for each standby (store.keep_warm = {self.standbys})" if self.standbys else ""
        return (
            f"it takes {_in_mb(session_bytes)} in each of {self.workers} workers{standbys}: {_in_mb(needed)}, and "
            f"other models take {_in_mb(taken)} of the {_in_mb(self.total_bytes)} there are; raise engine.workers_mb, "
            f"or lower server.workers or store.keep_warm"
        )


def _in_mb(size: int) -> str:
    return f"{size / MB:.3g} MB" if size < 100 * MB else f"{size / MB:.0f} MB"
