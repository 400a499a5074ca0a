"""What docs/store.md shows is what the code reads."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from serving.domain.manifest import parse_golden, parse_manifest
from serving.domain.version import RESERVED, SUFFIXES, digest_of, order_key
from serving.store.entries import MAX_FILES
from serving.store.names import IGNORED_ENDINGS
from tests.unit.store.files import sha256, write_version

PAGE = (Path(__file__).parents[3] / "docs" / "store.md").read_text()


def test_the_documents_shown_are_valid() -> None:
    manifest, golden = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert parse_manifest(manifest.encode()).signature is not None
    assert parse_golden(golden.encode()).expected["predict"] == [0, 2]


def test_the_order_shown_is_the_order() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) == 7
    for newer, older in rows:
        assert order_key(newer) > order_key(older)


def test_the_words_shown_are_all_of_them() -> None:
    assert set(re.findall(r"Reserved: `([a-z ]+)`", PAGE)[0].split()) == RESERVED
    assert " ".join(IGNORED_ENDINGS) in PAGE
    assert all(f"`{suffix}`" in PAGE for suffix in SUFFIXES)
    assert f"| files in a version | {MAX_FILES} |" in PAGE


def test_the_digest_can_be_had_from_a_shell(root: Path) -> None:
    directory = write_version(root, "iris", "2", model_joblib=b"model", golden_json=b"{}")
    command = re.findall(r"cd model_store/iris/2 && (.*)", PAGE)[0]
    answer = subprocess.run(command, shell=True, cwd=directory, capture_output=True, text=True, check=True).stdout
    digest = digest_of([("model.joblib", sha256(b"model")), ("golden.json", sha256(b"{}"))])
    assert f"sha256:{answer.split()[0]}" == digest
