"""Asks axe-core what people with a keyboard, a screen reader or weak eyes could not use on a page."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.browser.browsing import Page

FILE = Path(__file__).parents[2] / ".venv" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"  # of 4.14.1, as in the Makefile
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

needs_axe = pytest.mark.skipif(not FILE.exists(), reason="'make browser' installs axe-core, from npm")


@functools.cache
def read_axe() -> str:
    """Return the source of axe-core, after a look at its checksum."""
    source = FILE.read_bytes()
    assert hashlib.sha256(source).hexdigest() == SHA256, f"{FILE} is not the axe-core that was looked at: make browser"
    return source.decode()


def find_violations(page: Page) -> list[str]:
    """Return one line for each element that breaks a rule, as the page is now.

    The source is evaluated by the debugger, which the page's policy does not hold for.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(read_axe())
    found: dict[str, Any] = page.evaluate(
        "(tags) => axe.run({runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']})"
        ".then(({violations, passes}) => ({violations, passed: passes.length}))",
        RULES,
    )
    assert found["passed"] > 10, "axe has looked at nothing"
    return [
        f"{rule['id']}: {rule['help']}\n    {node['html'][:200]}\n    {node['failureSummary']}".replace("\n\n", "\n")
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
