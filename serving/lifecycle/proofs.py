"""The digest of the code that makes proofs of compiled forms: after a change, old graphs must not be used.

A release has a version of its own. Between two releases, and in a checkout, only the sources show a change.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import serving

# the package's own files that decide what a graph is and whether it is one
PROVING = ("plane/graph.py", "domain/compiled_form.py", "rows/apply_guard.py", "compiling", "host/graph_check")


@cache
def digest_of_proving() -> str:
    """Return the sha256 of all sources that draw, prove and check graphs. Blocks: reads some 60 small files, once."""
    return digest_of(Path(serving.__file__).parent, PROVING)


def digest_of(root: Path, names: tuple[str, ...]) -> str:
    """Return the sha256 of the names and contents of the Python files at `names` below `root`, and below those."""
    digest = hashlib.sha256()
    for name in names:
        at = root / name
        for path in sorted(at.rglob("*.py")) if at.is_dir() else [at] if at.is_file() else []:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()
