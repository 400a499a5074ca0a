"""The page's files fit together: what the first view loads is small, and known to the browser from the start."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from serving import api

UI = Path(api.__file__).parent / "ui"
MODULES = sorted(UI.rglob("*.js"))
_STATIC = re.compile(r'^(?:import|export)\s[^;]*?from\s+"([^"]+)"', re.MULTILINE)
_DYNAMIC = re.compile(r'\bimport\("([^"]+)"\)')
_SINKS = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|cssText|srcdoc")
_FIRST_VIEW = UI / "views" / "models_view.js"


def list_imports(module: Path, pattern: re.Pattern[str] = _STATIC) -> set[Path]:
    return {(module.parent / target).resolve() for target in pattern.findall(module.read_text())}


def follow(module: Path, found: set[Path] | None = None) -> set[Path]:
    """Return a module and all that it imports statically."""
    found = set() if found is None else found
    if module not in found:
        found.add(module)
        for target in list_imports(module):
            follow(target, found)
    return found


def list_links(relation: str) -> list[Path]:
    head = (UI / "index.html").read_text()
    return [UI / target for target in re.findall(rf'<link rel="{relation}" href="([^"]+)"', head)]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(UI)))
def test_every_import_names_a_file_of_the_page(module: Path) -> None:
    for target in list_imports(module) | list_imports(module, _DYNAMIC):
        assert target.is_file(), target
        assert target.is_relative_to(UI)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(UI)))
def test_no_module_makes_elements_of_text(module: Path) -> None:
    assert not _SINKS.search(module.read_text())


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(UI)))
def test_every_module_says_first_what_it_is(module: Path) -> None:
    assert module.read_text().startswith("// ")


def test_the_browser_is_told_of_every_module_that_the_page_needs() -> None:
    preloaded = list_links("modulepreload")
    assert len(preloaded) == len(set(preloaded))
    assert {path.resolve() for path in preloaded} == follow((UI / "main.js").resolve()) - {(UI / "main.js").resolve()}


def test_index_has_neither_scripts_nor_styles_of_its_own() -> None:
    text = (UI / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=", text)
    assert re.findall(r"<script[^>]*>([^<]*)</script>", text) == [""]
    assert "//" not in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)  # nothing from elsewhere


def test_the_first_view_is_small() -> None:
    files = {UI / "index.html", UI / "favicon.svg", *list_links("stylesheet")}
    files |= follow((UI / "main.js").resolve()) | follow(_FIRST_VIEW.resolve())
    assert sum(len(gzip.compress(path.read_bytes(), mtime=0)) for path in files) < 60_000
