"""A kept evaluation holds for the sources that proved it, and for no others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import serving
from serving import service
from serving.lifecycle import proofs
from serving.settings import Settings

PACKAGE = Path(serving.__file__).parent


@pytest.mark.parametrize(
    "name", ["compiling/prove.py", "compiling/converters/scaling.py", "plane/graph.py", "rows/apply_guard.py"]
)
def test_a_change_of_what_proves_is_another_digest(name: str, tmp_path: Path) -> None:
    for source in proofs.PROVING:
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        if (PACKAGE / source).is_dir():  # without what other processes write there while they import it
            shutil.copytree(PACKAGE / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PACKAGE / source, tmp_path / source)
    assert proofs.digest_of(tmp_path, proofs.PROVING) == proofs.digest_of_proving()
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    assert proofs.digest_of(tmp_path, proofs.PROVING) != proofs.digest_of_proving()


def test_a_new_file_is_another_digest(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = proofs.digest_of(tmp_path, (".",))
    (tmp_path / "b.py").write_text("")
    assert proofs.digest_of(tmp_path, (".",)) != before


def test_evaluations_are_kept_by_that_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = service._basis(Settings())
    assert service._basis(Settings()) == before
    monkeypatch.setattr(service, "digest_of_proving", lambda: "of another release")
    assert service._basis(Settings()) != before
