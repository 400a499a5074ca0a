"""What is told of an upload that has ended: in its status, and in the history."""

from __future__ import annotations

from typing import Any

from serving.domain.errors import PublishRefused, ServingError
from serving.domain.status import HistoryEntry
from serving.domain.upload import UploadState, UploadStatus
from serving.store.publishing import Published


def describe_end(end: Published | ServingError) -> dict[str, Any]:
    """Return what changes in the status of an upload at its end."""
    if isinstance(end, Published):
        assert end.report is not None
        found = {"version": end.version, "digest": end.digest, "gates": end.report.gates}
        return {"state": UploadState.PUBLISHED, **found}
    if isinstance(end, PublishRefused) and end.report is not None and end.report.refusal is not None:
        refusal = end.report.refusal
        found = {"gate": refusal.gate, "reason": refusal.evidence, "gates": end.report.gates}
        return {"state": UploadState.REFUSED, **found}
    return {"state": UploadState.FAILED, "reason": str(end)}


def describe_for_history(status: UploadStatus) -> HistoryEntry | None:
    """Return the entry for a version that was published or refused; other ends concern no version."""
    if status.state is UploadState.FAILED:
        return None
    reason = "published" if status.gate is None else f"refused by {status.gate}: {status.reason}"
    return HistoryEntry(
        at=status.at,
        version=status.version,
        digest=status.digest,
        actor=status.actor,
        event="upload",
        reason=f"{status.file}, {status.bytes} bytes: {reason}",
    )
