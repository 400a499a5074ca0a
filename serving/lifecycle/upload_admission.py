"""Decides whether an upload may begin: what can be refused is refused before its body is read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from serving.domain.errors import BodyTooLarge, InvalidInput, OperationRefused, PublishRefused, StoreFull
from serving.domain.upload import UploadRequest
from serving.settings import StoreSettings
from serving.store.links import is_inside
from serving.store.numbering import list_names, require_free_model, require_free_version
from serving.store.publishing import require_artefact_name
from serving.store.upload_directories import NO_ROOM, UploadDirectory, make_upload_directory

TAR_BYTES = 64 << 10  # what an archive has beside its files


def require_possible(settings: StoreSettings, request: UploadRequest) -> int:
    """Return how many bytes a body may have, or raise why nothing can be published for this request."""
    root, most = settings.path, int(settings.max_artifact_mb * (1 << 20))
    if request.file is None:
        most += TAR_BYTES
    else:
        try:
            require_artefact_name(request.file)
        except PublishRefused as error:
            raise InvalidInput(f"file: {error}") from None
    if request.size is not None and request.size > most:
        raise BodyTooLarge(f"the body has {request.size} bytes; store.max_artifact_mb allows {most}")
    try:
        require_free_model(str(root), request.model)
        _require_reachable(root, request)
        free = shutil.disk_usage(root).free
    except PublishRefused as error:
        raise OperationRefused(str(error)) from None
    except OSError as error:
        raise OperationRefused(f"the store cannot be read: {error.strerror}") from None
    if request.size is not None and request.size > free:
        raise StoreFull(f"the store has {free} bytes left, and the body has {request.size}; make room there")
    return most


def _require_reachable(root: Path, request: UploadRequest) -> None:
    """Raise PublishRefused or OperationRefused unless a version can be renamed into the directory of its model."""
    directory = root / request.model
    if not directory.is_dir():
        return
    if not is_inside(os.path.realpath(root), os.path.realpath(directory)):
        raise OperationRefused(f"'{request.model}' is a link that leads out of the store; nothing is published there")
    if directory.stat().st_dev != root.stat().st_dev:
        raise OperationRefused(f"'{request.model}' is on another disk than the store: publish there by other means")
    if request.version is not None:
        require_free_version(request.model, request.version, list_names(str(directory)))


def make_room(settings: StoreSettings, request: UploadRequest) -> UploadDirectory:
    """Make a directory for the files of an upload in the store. Blocks; raises StoreFull and OperationRefused."""
    try:
        return make_upload_directory(settings.path, request.model)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StoreFull(f"the store has no room: {error.strerror}") from None
        why = error.strerror or str(error)
        raise OperationRefused(
            f"this server cannot write into its store: {why}; publish there by other means"
        ) from None
