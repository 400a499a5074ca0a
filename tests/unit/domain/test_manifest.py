"""Manifests and golden files of any content are parsed or refused with one line, and nothing else is ever raised."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.domain.manifest import Golden, InvalidDocument, Manifest, parse_golden, parse_manifest

BOUNDED = settings(max_examples=150, deadline=None, derandomize=True, database=None)
SOAKED = settings(BOUNDED, max_examples=20_000)
WHOLE = {
    "model": "m",
    "version": "1",
    "created_at": "2026-11-20T08:00:00Z",
    "files": [{"name": "model.joblib", "sha256": "0" * 64, "size": 1}],
    "signature": None,
    "metrics": {"accuracy": 0.9},
}
EXPECTED = {"instances": [[1.0]], "expected": {"predict": [1.0]}}

odd_numbers = st.sampled_from([10**400, -(10**19), 1e308, -0.0, float("nan"), float("inf")])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | odd_numbers
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)
keys = st.sampled_from([*Manifest.model_fields, *Golden.model_fields, "unknown", ""])
changes = st.dictionaries(keys, values, max_size=3)
odd_bytes = st.sampled_from(
    [b"", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"9" * 5000, b'{"files": [{"name": "\\ud800"}]}']
)


def is_one_line(parse: Any, raw: bytes) -> None:
    try:
        found = parse(raw)
    except InvalidDocument as error:
        said = str(error)
    else:
        assert isinstance(found, (Manifest, Golden))
        return
    assert len(said.splitlines()) == 1
    assert "Traceback" not in said


def encoded(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=True).encode()


@pytest.mark.parametrize("parse", [parse_manifest, parse_golden])
def test_random_bytes_are_refused_with_one_line(parse: Any) -> None:
    @given(st.binary(max_size=300) | odd_bytes)
    @BOUNDED
    def check(raw: bytes) -> None:
        is_one_line(parse, raw)

    check()


def _check_changed(bounds: settings) -> None:
    @given(changes, st.sets(keys, max_size=2))
    @bounds
    def check(changed: dict[str, Any], missing: set[str]) -> None:
        for parse, whole in ((parse_manifest, WHOLE), (parse_golden, EXPECTED)):
            document = {key: value for key, value in {**whole, **changed}.items() if key not in missing}
            is_one_line(parse, encoded(document))

    check()


def test_a_changed_document_is_parsed_or_refused_with_one_line() -> None:
    _check_changed(BOUNDED)


@pytest.mark.soak
def test_many_changed_documents_are_parsed_or_refused_with_one_line() -> None:
    _check_changed(SOAKED)


@given(st.data())
@BOUNDED
def test_a_document_cut_short_or_with_another_byte_is_parsed_or_refused(data: st.DataObject) -> None:
    raw = bytearray(encoded(WHOLE))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    is_one_line(parse_manifest, bytes(raw))
    with contextlib.suppress(InvalidDocument):
        parse_manifest(bytes(raw[:place]))
        pytest.fail("half a document was taken for a whole one")


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", ".hidden", "", "a\0b", "a" * 256, "ä", "a\n", "-", "manifest.json/.."]
)
def test_a_manifest_lists_bare_names_only(name: str) -> None:
    listed = [{"name": name, "sha256": "0" * 64, "size": 1}]
    with pytest.raises(InvalidDocument, match=r"^manifest\.json: files\.0\.name: "):
        parse_manifest(encoded({**WHOLE, "files": listed}))


def test_a_manifest_may_name_an_environment() -> None:
    assert parse_manifest(encoded(WHOLE)).environment is None
    assert parse_manifest(encoded({**WHOLE, "environment": "sk1.3"})).environment == "sk1.3"
    for name in ("", "../x", "a b", "a" * 101, 3):
        with pytest.raises(InvalidDocument, match=r"^manifest\.json: environment: "):
            parse_manifest(encoded({**WHOLE, "environment": name}))


def test_whole_documents_are_parsed() -> None:
    assert parse_manifest(encoded(WHOLE)).files[0].name == "model.joblib"
    assert parse_golden(encoded(EXPECTED)).expected == {"predict": [1.0]}
