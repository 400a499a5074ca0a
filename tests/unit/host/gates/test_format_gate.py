"""The format gate: the first bytes fit the suffix; otherwise the message names the real format."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import joblib
import pytest
import skops.io
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression

from serving.domain.report import Verdict
from serving.domain.version import Format
from tests.unit.host.candidates import ROWS, MakeCandidate


def write_joblib(compress: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump({"a": 1}, buffer, compress=compress)
    return buffer.getvalue()


def zip_members(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_", "."), text)
    return buffer.getvalue()


GRAPH = to_onnx(LinearRegression().fit(ROWS, ROWS[:, 0]), ROWS[:1]).SerializeToString()


@pytest.mark.parametrize(
    ("raw", "kind", "seen"),
    [
        (write_joblib(0), Format.JOBLIB, "a pickle"),
        (write_joblib(0), Format.PICKLE, "a pickle"),
        (write_joblib(("zlib", 1)), Format.JOBLIB, "a zlib joblib file"),
        (write_joblib(("zlib", 9)), Format.JOBLIB, "a zlib joblib file"),
        (write_joblib(("gzip", 3)), Format.PICKLE, "a gzip joblib file"),
        (write_joblib(("bz2", 3)), Format.JOBLIB, "a bz2 joblib file"),
        (write_joblib(("xz", 3)), Format.JOBLIB, "a xz joblib file"),
        (write_joblib(("lzma", 3)), Format.JOBLIB, "a lzma joblib file"),
        (b"\x04\x22\x4d\x18" + bytes(20), Format.JOBLIB, "a lz4 joblib file"),
        (pickle.dumps(1, 2), Format.PICKLE, "a pickle"),
        (pickle.dumps(1, 5), Format.PICKLE, "a pickle"),
        (skops.io.dumps({"a": 1}), Format.SKOPS, "a zip archive"),
        (GRAPH, Format.ONNX, "an ONNX graph"),
    ],
)
def test_a_file_of_the_right_format_passes(candidate: MakeCandidate, raw: bytes, kind: Format, seen: str) -> None:
    result = candidate(raw, f"model.{kind}", kind).evaluate()["format"]
    assert (result.verdict, result.evidence) == (Verdict.PASSED, f"{seen}, {len(raw)} bytes")


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        (b"", Format.JOBLIB, "is empty"),
        (b"<!DOCTYPE html><html>", Format.JOBLIB, "an HTML page: the download gave an error or a login page"),
        (b"\n\n <html lang='en'>", Format.ONNX, "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", Format.JOBLIB, "a Git LFS pointer, not the file itself: run"),
        (b'{"error": "not found"}', Format.SKOPS, 'text, beginning with \'{"error": "not found"}\''),
        (bytes(4096), Format.JOBLIB, "nothing but zero bytes: the copy was cut short"),
        (b"\x89HDF\r\n\x1a\n" + bytes(9), Format.JOBLIB, "an HDF5 file"),
        (b"\x93NUMPY\x01\x00", Format.PICKLE, "a NumPy array, not a model"),
        (b"\x28\xb5\x2f\xfd" + bytes(9), Format.JOBLIB, "compressed with zstd, which joblib does not read"),
        (pickle.dumps(1, 0), Format.PICKLE, "text, beginning with 'I1'"),
        (write_joblib(0), Format.ONNX, "should be a onnx file but is a pickle: name it .joblib or .pkl"),
        (write_joblib(0), Format.SKOPS, "is a pickle"),
        (skops.io.dumps({"a": 1}), Format.JOBLIB, "is a zip archive: a skops file is named .skops"),
        (GRAPH, Format.JOBLIB, "is an ONNX graph: name it .onnx"),
        (b"\x80\xff garbage", Format.JOBLIB, "something unknown, beginning with the bytes 80 ff 20 67"),
        (b"\x80", Format.PICKLE, "something unknown"),
        (b"\xff", Format.ONNX, "something unknown"),
        (zip_members(readme_txt="hello"), Format.SKOPS, "a zip archive without schema.json"),
        (skops.io.dumps({"a": 1})[:-30], Format.SKOPS, "a damaged zip archive"),
    ],
)
def test_a_file_of_another_format_is_refused_and_named(
    candidate: MakeCandidate, raw: bytes, kind: Format, words: str
) -> None:
    result = candidate(raw, f"model.{kind}", kind).evaluate()["format"]
    assert result.verdict is Verdict.REFUSED
    assert f"'model.{kind}'" in result.evidence
    assert words in result.evidence
