"""Gate: the content of the file has the format of its suffix."""

from __future__ import annotations

import zipfile

from serving.domain.first_bytes import HEAD_BYTES, is_onnx, is_pickle, is_xgboost
from serving.domain.report import GateName, Verdict
from serving.domain.version import Format
from serving.host.foreign_files import describe_archive, describe_bytes
from serving.host.gates.gate import GateContext, GateOutcome, GateRefused

_ZIP = "a zip archive"
_UBJSON_LENGTHS = b"iUIlL"  # of the first name, after a brace

_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x5d\x00\x00": "lzma",
    b"\x04\x22\x4d\x18": "lz4",
}
_SUFFIX = {
    "a pickle": "name it .joblib or .pkl",
    "an ONNX graph": "name it .onnx",
    _ZIP: "a skops file is named .skops",
    "an XGBoost model": "name it .ubj or .json",
    "a LightGBM model": "name it model.txt, or another name that ends in .txt",
}


class FormatGate:
    """The first bytes fit the suffix; otherwise the message names the real format."""

    name = GateName.FORMAT

    def check(self, context: GateContext) -> GateOutcome:
        """Check the first bytes of the artefact; nothing in it is run."""
        main = context.request.main
        wanted = context.request.format
        if main.size == 0:
            raise GateRefused(f"'{main.name}' is empty")
        with open(main.path, "rb") as file:
            head = file.read(HEAD_BYTES)
        seen = _describe_head(head)
        if seen == _ZIP:
            seen = _describe_archive(main.path, main.name) or seen
        fits = {
            Format.JOBLIB: seen == "a pickle" or seen.endswith("joblib file"),
            Format.PICKLE: seen == "a pickle" or seen.endswith("joblib file"),
            Format.SKOPS: seen == _ZIP,
            Format.ONNX: seen == "an ONNX graph",
            Format.XGBOOST: seen == "an XGBoost model",
            Format.LIGHTGBM: seen == "a LightGBM model",
        }
        if not fits[wanted]:
            hint = f": {_SUFFIX[seen]}" if seen in _SUFFIX else ""
            raise GateRefused(f"'{main.name}' should be a {wanted} file but is {seen}{hint}")
        return Verdict.PASSED, f"{seen}, {main.size} bytes"


def _describe_head(head: bytes) -> str:
    foreign = describe_bytes(head)
    if foreign is not None:
        return foreign
    if is_pickle(head):
        return "a pickle"
    compression = next((name for magic, name in _COMPRESSIONS.items() if head.startswith(magic)), None)
    if compression is None and head[0] & 0x0F == 8 and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0:
        compression = "zlib"  # RFC 1950: deflate, and a header that is a multiple of 31
    if compression is not None:
        return f"a {compression} joblib file"
    if head.startswith(b"PK\x03\x04"):
        return _ZIP
    if is_onnx(head):
        return "an ONNX graph"
    return _describe_booster_file(head) or _describe_text(head)


def _describe_booster_file(head: bytes) -> str | None:
    if is_xgboost(head):
        return "an XGBoost model"
    if head[:1] == b"{" and head[1:2] and head[1] in _UBJSON_LENGTHS:
        return "a UBJSON document"
    return "a LightGBM model" if head.startswith((b"tree\n", b"tree\r\n")) else None


def _describe_text(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page: the download gave an error or a login page instead of the file"
    if not head.strip(b"\x00"):
        return "nothing but zero bytes: the copy was cut short"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        first = head.splitlines()[0][:40].decode("ascii") if head.splitlines() else ""
        return f"text, beginning with {first!r}"
    return f"something unknown, beginning with the bytes {head[:8].hex(' ')}"


def _describe_archive(path: str, name: str) -> str | None:
    """Return what a zip archive is, from the names of its files; None for a skops file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise GateRefused(f"'{name}' is a damaged zip archive ({error}): copy it again") from None
    if "schema.json" in names:
        return None
    return describe_archive(names) or "a zip archive without schema.json, so no skops file"
