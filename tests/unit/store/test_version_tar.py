"""An archive of a version is read as it arrives, and means what it looks like or nothing."""

from __future__ import annotations

import contextlib
import io
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.errors import Malformed
from serving.store.version_tar import BLOCK, MAX_TAR_FILES, TarWriter
from tests.e2e.uploading import archive

FILES = {"model.joblib": b"m" * 1000, "golden.json": b"{}", "manifest.sig": b""}


def unpack(raw: bytes, directory: Path, step: int = 1 << 20) -> dict[str, bytes]:
    writer = TarWriter(directory)
    try:
        for start in range(0, len(raw), step):
            writer.write(raw[start : start + step])
        writer.finish()
    finally:
        writer.close()
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def entry(name: str, **fields: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(found, key, value)
    return found


def tar_of(*entries: tarfile.TarInfo, format: int = tarfile.USTAR_FORMAT) -> bytes:  # noqa: A002
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for one in entries:
            tar.addfile(one, io.BytesIO(bytes(one.size)))
    return file.getvalue()


@pytest.mark.parametrize("step", [1, 100, BLOCK, 1 << 20])
def test_the_files_of_an_archive_are_written(tmp_path: Path, step: int) -> None:
    assert unpack(archive(FILES), tmp_path, step) == FILES


def test_the_directory_itself_may_be_in_it(tmp_path: Path) -> None:
    raw = tar_of(entry("./", type=tarfile.DIRTYPE), entry("./model.joblib", size=3))
    assert unpack(raw, tmp_path) == {"model.joblib": bytes(3)}


def test_the_old_formats_and_gnu_without_extensions_are_read(tmp_path: Path) -> None:
    assert unpack(archive(FILES, tarfile.GNU_FORMAT), tmp_path) == FILES


ODD_KINDS = {
    "symbolic link": entry("model.joblib", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": entry("model.joblib", type=tarfile.LNKTYPE, linkname="../1/model.joblib"),
    "device": entry("model.joblib", type=tarfile.CHRTYPE),
    "named pipe": entry("model.joblib", type=tarfile.FIFOTYPE),
    "directory": entry("files", type=tarfile.DIRTYPE),
    "sparse": entry("model.joblib", type=tarfile.GNUTYPE_SPARSE),
    "reserved": entry("model.joblib", type=tarfile.CONTTYPE),
    "of the kind": entry("model.joblib", type=b"Z"),
}


@pytest.mark.parametrize("kind", ODD_KINDS)
def test_what_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(Malformed, match=kind):
        unpack(tar_of(ODD_KINDS[kind]), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "../model.joblib",
        "/model.joblib",
        "a/model.joblib",
        "./../model.joblib",
        "..",
        ".",
        "",
        ".hidden",
        "model.joblib.part",
        "m\u00f6del.joblib",
        "a b",
        "a\n",
        "-x",
        "././m",
        "lock/",
    ],
)
def test_names_that_are_not_plain_are_refused(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(Malformed):
        unpack(tar_of(entry(name, size=3)), inside)
    assert list(tmp_path.rglob("*")) == [inside]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_headers_that_change_others_are_refused(tmp_path: Path, format: int) -> None:  # noqa: A002
    long = entry("m" * 150, size=3)
    with pytest.raises(Malformed, match=r"pax header|GNU long name"):
        unpack(tar_of(long, format=format), tmp_path)
    with pytest.raises(Malformed, match="pax header"):
        unpack(tar_of(entry("model.joblib", pax_headers={"path": "../x"}), format=tarfile.PAX_FORMAT), tmp_path)
    with pytest.raises(Malformed, match="lies in a directory"):
        unpack(tar_of(entry("d/" * 60 + "model.joblib")), tmp_path)


def test_a_name_comes_once_in_any_case(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="twice"):
        unpack(tar_of(entry("model.joblib"), entry("Model.joblib")), tmp_path)


def test_more_files_than_a_version_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match=f"more than {MAX_TAR_FILES} files"):
        unpack(tar_of(*(entry(f"f{number}") for number in range(MAX_TAR_FILES + 1))), tmp_path)


def test_an_archive_without_its_end_is_no_archive(tmp_path: Path) -> None:
    raw = archive({"model.joblib": bytes(100)})
    for length in (0, 10, BLOCK, BLOCK + 50, 2 * BLOCK, 3 * BLOCK, 3 * BLOCK + 1):
        place = tmp_path / str(length)
        place.mkdir()
        with pytest.raises(Malformed):
            unpack(raw[:length], place)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert unpack(raw[: 4 * BLOCK], whole)


def test_nothing_follows_the_end(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="something follows"):
        unpack(archive({"model.joblib": b""}) + archive({"other.joblib": b""}), tmp_path)


def test_an_archive_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="holds no file"):
        unpack(bytes(2 * BLOCK), tmp_path)


@pytest.mark.parametrize("size", [b"\x80\0\0\0\0\0\0\0\0\0\0\x05", b"-0000000005\0", b"            ", b"0000000009 \0"])
def test_sizes_are_octal_digits(tmp_path: Path, size: bytes) -> None:
    header = bytearray(tar_of(entry("model.joblib", size=5))[:BLOCK])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(Malformed, match="no number"):
        unpack(bytes(header) + bytes(3 * BLOCK), tmp_path)


def test_a_size_beyond_the_body_is_a_cut_archive(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="cut short"):
        unpack(entry("model.joblib", size=8**11 - 1).tobuf(tarfile.USTAR_FORMAT) + bytes(1024), tmp_path)


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_damaged_archives_are_refused_or_read_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, seed: int, changes: int
) -> None:
    place = tmp_path_factory.mktemp("damaged")
    inside = place / "inside"
    inside.mkdir()
    chance = random.Random(seed)
    raw = bytearray(archive(FILES))
    for _ in range(changes):
        raw[chance.randrange(2048)] = chance.randrange(256)
    with contextlib.suppress(Malformed):
        unpack(bytes(raw), inside, 700)
    assert list(place.iterdir()) == [inside]
    assert all(path.is_file() and not path.is_symlink() for path in inside.iterdir())


def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="no tar archive"):
        unpack(b"\x80\x04" * 600, tmp_path)
