"""Says in one line why uv or pip failed, and what to do. The lines themselves are shown, too: this is only a hint."""

from __future__ import annotations

import re
from collections.abc import Sequence

_DISK = r"No space left on device|Disk quota exceeded|ENOSPC"
_NETWORK = (
    r"Temporary failure in name resolution|Name or service not known|Connection refused|Network is unreachable"
    r"|dns error|error sending request|NewConnectionError|ProxyError|timed out|Could not connect|failed to lookup"
)
_WHEEL = r"no usable wheels|no wheels with a matching|--only-binary|--no-build|building from source is disabled"
_NONE = r"\(from versions: none\)"
_VERSION = r"No matching distribution found|there is no version of|not found in the package registry"
_CONFLICT = r"ResolutionImpossible|conflicting dependencies|requirements are unsatisfiable|No solution found"
_VENV = r"ensurepip is not available|No module named '?(ensurepip|venv)"
_CAUSES = {
    _DISK: "the disk is full; make room, and create it again",
    _NETWORK: "the package index cannot be reached; check the network, or tell the installer another index",
    _WHEEL: "a package has no wheel for this Python; choose another with --python, another version with --with, or let "
    "its code run now with --allow-source",
    _NONE: "the index has no wheel of a package for this Python, or cannot be reached; see its last lines",
    _VERSION: "the index has no such version for this Python; choose another with --with 'NAME==VERSION' or --python",
    _CONFLICT: "the versions do not fit together; replace one of them: --with 'NAME>=VERSION'",
    _VENV: "this Python cannot make virtual environments; install its venv (Debian: python3-venv), or uv",
    "unexpected argument": "this uv is too old to know what it is asked for; upgrade it",
    "Permission denied": "nothing may be written there; see environments.path",
}


def explain_failure(lines: Sequence[str], code: int) -> str:
    """Return the likely cause of a failure, from the last lines that the program printed and its exit status."""
    text = "\n".join(lines)
    for pattern, cause in _CAUSES.items():
        if re.search(pattern, text, re.IGNORECASE):
            return cause
    if code < 0:
        return f"it was killed by signal {-code}"
    return f"it ended with status {code}"
