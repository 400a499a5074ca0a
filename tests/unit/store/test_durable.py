"""Bytes on disk: all of them, once, and known by their hash."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from serving.store.durable import create_file, read_chunks, sha256_of


def test_a_file_holds_all_chunks_and_its_hash_is_returned(tmp_path: Path) -> None:
    sha256 = create_file(tmp_path / "file", [b"one ", memoryview(b"two")])
    assert (tmp_path / "file").read_bytes() == b"one two"
    assert sha256 == hashlib.sha256(b"one two").hexdigest()


def test_a_write_that_takes_a_part_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:3]))
    create_file(tmp_path / "file", [b"more than three bytes"])
    assert (tmp_path / "file").read_bytes() == b"more than three bytes"


def test_an_existing_file_is_never_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            create_file(tmp_path / name, [b"after"])
    assert (tmp_path / "file").read_bytes() == b"before"
    assert not (tmp_path / "nowhere").exists()


def test_chunks_are_everything_in_pieces_of_the_buffer(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        chunks = [bytes(chunk) for chunk in read_chunks(file.fileno(), memoryview(bytearray(4)))]
    assert chunks == [b"0123", b"4567", b"89"]
    assert sha256_of(chunks) == hashlib.sha256(b"0123456789").hexdigest()
