"""The archive of a skops file: the size of each member is limited before it is read, and each name occurs once."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from serving.host.restricted import Distrusted, load_skops
from serving.host.restricted.reading import FREE_BYTES
from serving.host.restricted.skops_archive import Archive, Budget
from tests.hostile.skops_files import archive, array, in_list, node, noted, npy, npz, plain, whole

BOMB = bytes(FREE_BYTES + 1)


@contextmanager
def memory_below(most_bytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[bytes], str]:
    def why(raw: bytes) -> str:
        path = tmp_path / "file.skops"
        path.write_bytes(raw)
        with pytest.raises(Distrusted) as caught:
            load_skops(str(path), max_expansion=1.0)
        return str(caught.value)

    return why


def make_bytes_node(file: str) -> dict[str, object]:
    return node("BytesNode", "builtins.bytes", file=file)


def test_a_bomb_is_refused_before_it_is_read(refusal: Callable[[bytes], str]) -> None:
    raws = [
        noted(make_bytes_node("a.bin"), a_bin=BOMB),
        archive({"schema.json": BOMB}),
        noted(array("a.npy"), a_npy=npy(np.frombuffer(BOMB, "u1"))),
        noted(
            node("SparseMatrixNode", "scipy.sparse._csr.csr_matrix", type="scipy", file="a.npz"), a_npz=sparse_bomb()
        ),
    ]
    assert max(map(len, raws)) < 200_000
    with memory_below(8 << 20):
        for raw in raws:
            assert refusal(raw) == (
                "the file becomes larger than 64 MB, all that its size allows (candidate.max_expansion)"
            )


def sparse_bomb() -> bytes:
    return npz(shape=np.array([1, 1]), data=np.frombuffer(BOMB, "u1"), indices=np.ones(1), indptr=np.ones(2))


def test_an_expansion_that_the_operator_allows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.skops"
    path.write_bytes(whole(in_list(make_bytes_node("a.bin")), a_bin=BOMB))
    assert len(load_skops(str(path), max_expansion=100_000.0)[0]) == len(BOMB)


def test_a_member_counts_each_time_it_is_named(refusal: Callable[[bytes], str]) -> None:
    many = in_list(*[make_bytes_node("a.bin")] * 70)
    assert "becomes larger than 64 MB" in refusal(noted(many, a_bin=bytes(1 << 20)))


def understate_size(raw: bytes, name: str, size: int, compression: int) -> bytes:
    """Return an archive with one more member, which claims to have `size` bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as before, zipfile.ZipFile(file, "w", compression) as opened:
        for each in before.namelist():
            opened.writestr(each, before.read(each))
        opened.writestr(name, b"\x93NUMPY\x02\x00" + struct.pack("<I", (1 << 31) - 1) + BOMB)
        opened.filelist[-1].file_size = size
    return file.getvalue()


@pytest.mark.parametrize(
    "part", [make_bytes_node("a.bin"), array("a.bin")], ids=["bytes", "an array with a huge header"]
)
def test_a_member_larger_than_it_claims_costs_no_more_memory(part: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "file.skops"
    path.write_bytes(understate_size(noted(part), "a.bin", 1000, zipfile.ZIP_DEFLATED))
    with memory_below(8 << 20), pytest.raises((zipfile.BadZipFile, ValueError)):
        load_skops(str(path))


def test_two_members_of_one_name_are_refused(refusal: Callable[[bytes], str]) -> None:
    file = io.BytesIO(noted(plain(1)))
    with zipfile.ZipFile(file, "a") as opened, pytest.warns(UserWarning, match="Duplicate name"):
        opened.writestr("schema.json", "{}")
    assert "two members called 'schema.json'" in refusal(file.getvalue())


@pytest.mark.parametrize("name", ["b.bin", "../a.bin", "/etc/hostname", "", None, 1, ["a.bin"]])
def test_missing_members_are_refused(name: object, refusal: Callable[[bytes], str]) -> None:
    said = refusal(noted({**array("a.bin"), "file": name}, a_bin=b""))
    assert "which is not in it" in said


def test_an_archive_without_a_schema_is_refused(refusal: Callable[[bytes], str]) -> None:
    assert "names the member 'schema.json', which is not in it" in refusal(archive({"a": b""}))


def test_a_sparse_matrix_without_an_array_is_refused(refusal: Callable[[bytes], str]) -> None:
    forged = node("SparseMatrixNode", "scipy.sparse._csr.csr_matrix", type="scipy", file="a.npz")
    assert "names the member 'data.npy'" in refusal(noted(forged, a_npz=npz(shape=np.array([1, 1]))))


def test_a_format_of_numpys_that_no_model_needs_is_refused(refusal: Callable[[bytes], str]) -> None:
    forged = b"\x93NUMPY\x03\x00" + npy(np.ones(1))[8:]
    assert "NumPy's format (3, 0)" in refusal(noted(array("a.npy"), a_npy=forged))


def test_numbers_of_another_kind_are_refused() -> None:
    opened = Archive(io.BytesIO(archive({"a": npy(np.ones(2))})), Budget(1000))
    with pytest.raises(Distrusted, match="an array of <f8 where skops writes another"):
        opened.open_array("a").read_numbers("iu")
    assert opened.open_array("a").read_numbers("f").tolist() == [1, 1]
