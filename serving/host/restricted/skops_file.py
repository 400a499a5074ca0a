"""From a skops file to the object in it: rewritten as a pickle, and read by the very rules for pickles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from serving.host.restricted.allow_list import Global, allowed, current_name
from serving.host.restricted.distrust import Distrusted
from serving.host.restricted.reading import FREE_BYTES, Budgeted, check_loaded
from serving.host.restricted.refused_names import find_unlisted, write_line
from serving.host.restricted.skops_archive import Archive, Budget
from serving.host.restricted.skops_nodes import rewrite
from serving.host.restricted.unpickler import RestrictedUnpickler

SETTING = "security.skops_trusted"
_PROTOCOL = 4


def load_skops(path: str, trusted: Sequence[str] = (), max_expansion: float = 200.0) -> Any:
    """Return the object in a skops file, building known classes only, as `load_restricted` does.

    `trusted` are further names, ``module.name``, that the file may use in any way. Beyond 64 MB no more than
    `max_expansion` times the size of the file is read out of it. Blocks. Raises Distrusted for what nobody vouches for,
    and what damage raises otherwise.
    """
    names = allowed().trusting(tuple(trusted))
    budget = Budget(max(FREE_BYTES, int(os.path.getsize(path) * max_expansion)))
    with open(path, "rb") as file:
        written = rewrite(Archive(file, budget), names)
    _require_known(written.names, trusted)
    whole = written.finish()
    found = RestrictedUnpickler(path, Budgeted(whole, whole.getbuffer().nbytes, is_compressed=False), names).load()
    check_loaded(found, trusted, SETTING)
    return found


def _require_known(named: set[Global], trusted: Sequence[str]) -> None:
    """Raise Distrusted with all names that the operator would have to trust beside those that are `trusted`."""
    unknown = sorted(
        ".".join(each) for each in find_unlisted({current_name(*each, _PROTOCOL) for each in named}, trusted)
    )
    if unknown:
        line = write_line(SETTING, trusted, unknown)
        raise Distrusted(f"the file names types nobody trusts; if you do: {line}")
