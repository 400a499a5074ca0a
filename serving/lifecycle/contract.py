"""What newer versions of a model have to be compatible with."""

from __future__ import annotations

from serving.lifecycle.records import ModelRecord
from serving.lifecycle.served_versions import RememberedContract, ServedVersions


def contract_of(model: ModelRecord, served: ServedVersions) -> RememberedContract | None:
    """Return the contract of the active version, or of the one that was active last while the store still has it.

    Otherwise a version its clients cannot use would get in by a restart, when nothing is active yet. Reconciler thread
    only.
    """
    active = model.active
    if active is not None and active.report is not None and active.report.signature is not None:
        return RememberedContract(active.version, active.id.digest, active.report.signature)
    last = served.contracts.get(model.name)
    return last if active is None and last is not None and last.version in model.listed else None
