"""The integrity gate: the staged files are those that the manifest lists, and they have not changed."""

from __future__ import annotations

from typing import Any

import pytest

from serving.domain.report import Verdict
from tests.unit.host.candidates import Candidate, MakeCandidate


@pytest.fixture
def made(candidate: MakeCandidate, yes_or_no: Any) -> Candidate:
    return candidate(yes_or_no)


def refusal(made: Candidate, **options: Any) -> str:
    result = made.evaluate(**options)["integrity"]
    assert result.verdict is Verdict.REFUSED
    return result.evidence


def test_without_a_manifest_the_digest_is_reported(made: Candidate) -> None:
    result = made.evaluate()["integrity"]
    assert result.verdict is Verdict.PASSED
    assert result.evidence.startswith("no manifest.json; digest sha256:")


def test_the_listed_files_pass(made: Candidate) -> None:
    made.write("notes.txt", b"hello")
    made.write_manifest()
    result = made.evaluate()["integrity"]
    assert result.verdict is Verdict.PASSED
    assert result.evidence.startswith("2 files as listed in manifest.json; digest sha256:")


def test_a_file_of_the_same_size_with_other_bytes_is_refused(made: Candidate) -> None:
    made.write("notes.txt", b"hello")
    made.write_manifest()
    made.write("notes.txt", b"jello")
    assert "'notes.txt' has sha256 187c9bceeb91..., manifest.json says 2cf24dba5fb0..." in refusal(made)


def test_a_file_of_another_size_is_refused(made: Candidate) -> None:
    made.write("notes.txt", b"hello")
    made.write_manifest()
    made.write("notes.txt", b"hello!")
    assert refusal(made) == "'notes.txt' has 6 bytes, manifest.json says 5"


def test_a_missing_file_is_refused(made: Candidate) -> None:
    made.write("notes.txt", b"hello")
    made.write_manifest()
    del made.files["notes.txt"]
    assert refusal(made) == "manifest.json lists 'notes.txt', which is not there"


def test_an_unlisted_file_is_refused(made: Candidate) -> None:
    made.write_manifest()
    made.write("notes.txt", b"hello")
    assert refusal(made).startswith("'notes.txt' is not listed in manifest.json: remove it, or publish a new version")


def test_only_signatures_need_not_be_listed(made: Candidate) -> None:
    made.write_manifest()
    made.write("manifest.sig", b"")
    assert made.evaluate()["integrity"].verdict is Verdict.PASSED
    made.write("manifest.sig.asc", b"")
    assert refusal(made).startswith("'manifest.sig.asc' is not listed in manifest.json")


def test_adding_a_signature_is_no_conflict_but_removing_it_is(made: Candidate) -> None:
    made.write_manifest()
    unsigned = made.evaluate()["integrity"].evidence.rsplit(" ", 1)[-1]
    made.write("manifest.sig", b"")
    passed = made.evaluate(published_digest=unsigned)["integrity"]
    assert passed.verdict is Verdict.PASSED
    signed = passed.evidence.rsplit(" ", 1)[-1]
    del made.files["manifest.sig"]
    assert refusal(made, published_digest=signed).startswith("conflict: version 1 was published as")


def test_a_file_listed_twice_is_refused(made: Candidate) -> None:
    file = made.files["model.joblib"]
    entry = {"name": file.name, "sha256": file.sha256, "size": file.size}
    made.write_manifest(files=[entry, entry])
    assert refusal(made) == "manifest.json lists a file twice"


@pytest.mark.parametrize("other", [{"model": "n"}, {"version": "2"}])
def test_a_manifest_for_something_else_is_refused(made: Candidate, other: dict[str, str]) -> None:
    made.write_manifest(**other)
    assert "this is m/1: publish it under its own name" in refusal(made)


def test_a_manifest_that_cannot_be_read_names_the_field(made: Candidate) -> None:
    made.write_manifest(metrcs={})
    assert refusal(made) == "manifest.json: metrcs: Extra inputs are not permitted"
    made.write("manifest.json", b"{")
    assert refusal(made).startswith("manifest.json: document: Invalid JSON")


def test_a_document_that_is_too_large_is_not_read(made: Candidate) -> None:
    made.write_manifest()
    made.files["manifest.json"] = made.files["manifest.json"].model_copy(update={"size": 1 << 40, "path": "/nowhere"})
    assert "manifest.json has 1099511627776 bytes" in refusal(made)


def test_published_bytes_may_not_change(made: Candidate) -> None:
    made.write_manifest()
    passed = made.evaluate()["integrity"]
    digest = passed.evidence.rsplit(" ", 1)[-1]
    assert made.evaluate(published_digest=digest)["integrity"].verdict is Verdict.PASSED
    other = "sha256:" + "0" * 64
    assert refusal(made, published_digest=other) == (
        f"conflict: version 1 was published as {other}, its bytes may not change; publish a new version"
    )
