"""A number for the protocol that this process speaks, so that two releases of the package never talk to each other.

The files of a running server may be replaced on disk by another release. A zygote that starts later runs the new code,
and the server still runs the old one. Both compute this number from the code that describes what they say.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_PARTS = ("domain", "wire")


def compute_wire_version() -> int:
    """Return a number of 63 bits for the modules on disk that describe frames and their values. Reads 300 KB."""
    digest = hashlib.sha256()
    for part in _PARTS:
        for path in sorted((_PACKAGE / part).glob("*.py")):
            content = path.read_bytes()
            digest.update(f"{part}/{path.name} {len(content)}\n".encode() + content)
    return int.from_bytes(digest.digest()[:8], "little") >> 1


# when this module is imported, the files on disk are still those that this process runs
WIRE_VERSION = compute_wire_version()
