"""Workers are told what has changed in the status, and new ones everything."""

from __future__ import annotations

from dataclasses import replace

from serving.domain.status import Status
from serving.domain.upload import UploadState, UploadStatus
from serving.supervisor.status_board import StatusBoard
from serving.wire.worker_messages import StatusChange
from tests.fakes import NOON

UPLOAD = UploadStatus(
    id="1", model="m", version="2", file="model.joblib", state=UploadState.CHECKING, actor="a", at=NOON
)


def test_uploads_are_told_when_they_change_and_to_new_workers() -> None:
    changes: list[StatusChange] = []
    board = StatusBoard(changes.append)
    board.show(changes.append)
    board.status = replace(Status(), uploads=(UPLOAD,))
    board.status = replace(board.status, uploads=(UPLOAD.model_copy(),))
    board.status = replace(board.status, is_stopping=True)
    board.show(changes.append)
    board.status = Status()
    assert [change.uploads for change in changes] == [(), (UPLOAD,), None, (UPLOAD,), ()]
