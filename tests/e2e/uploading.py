"""Bodies of uploads, and the calls that send them."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import joblib

from tests.e2e.harness import TOKEN, Server, connect

HEADERS = {"Authorization": f"Bearer {TOKEN}"}
UPLOADS = {"SERVING_STORE__UPLOADS": "true"}


def dump(estimator: Any) -> bytes:
    """Return a model as a joblib file."""
    file = io.BytesIO()
    joblib.dump(estimator, file)
    return file.getvalue()


def archive(files: Mapping[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:  # noqa: A002
    """Return a tar archive of files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def upload(
    server: Server, model: str, version: str | int, body: Any, query: str = "?file=model.joblib"
) -> httpx.Response:
    """Send a version as one file."""
    return server.client.put(f"{server.url}/models/{model}/versions/{version}{query}", content=body, headers=HEADERS)


def upload_tar(server: Server, model: str, version: str | int, body: Any, query: str = "") -> httpx.Response:
    """Send a version directory."""
    headers = {**HEADERS, "Content-Type": "application/x-tar"}
    return server.client.put(f"{server.url}/models/{model}/versions/{version}{query}", content=body, headers=headers)


def manifest_of(server: Server, model: str, version: str | int) -> Any:
    """Return the manifest of a version in the store."""
    return json.loads((server.store / model / str(version) / "manifest.json").read_text())


def leftovers(store: Path) -> list[str]:
    """Return the hidden names at the top of a store, and in its models, any of which may go in this moment."""
    hidden = [name.name for name in store.glob(".*")]
    for model in store.glob("[!.]*"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            hidden += [f"{model.name}/{path.name}" for path in model.iterdir() if path.name.startswith(".")]
    return hidden


@contextlib.contextmanager
def begin_upload(server: Server, model: str, version: str, *lines: str, body: bytes = b"") -> Iterator[socket.socket]:
    """Send the head of an upload, and no more of its body than is given, for the length of the block."""
    head = [
        f"PUT /models/{model}/versions/{version}?file=model.joblib HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {TOKEN}",
        *(lines or ("Content-Length: 2000000",)),
    ]
    with connect(server.url) as sock:
        sock.sendall("\r\n".join([*head, "", ""]).encode() + body)
        yield sock
