"""Reads the object in a skops file: the file is rewritten as a pickle, and read by the rules for pickles."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from serving.host.restricted.allow_list import Distrusted, Global, find_current_name, read_allow_list
from serving.host.restricted.opcodes import Survey, survey_opcodes
from serving.host.restricted.reading import FREE_BYTES, BudgetedFile, check_loaded
from serving.host.restricted.refused_names import find_unlisted, write_setting_line
from serving.host.restricted.skops_archive import Archive, Budget
from serving.host.restricted.skops_nodes import rewrite_as_pickle
from serving.host.restricted.unpickler import RestrictedUnpickler

SETTING = "security.skops_trusted"
_PROTOCOL = 4


def load_skops(path: str, trusted: Sequence[str] = (), max_expansion: float = 200.0) -> Any:
    """Return the object in a skops file. Only known classes are built, as in `load_restricted`.

    `trusted` are further names, ``module.name``, that the file may use in any way. Beyond 64 MB no more than
    `max_expansion` times the size of the file is read out of it. Blocks. Raises Distrusted for a file that does what no
    known model does. A damaged file raises another exception.
    """
    names = read_allow_list().with_trusted(tuple(trusted))
    budget = Budget(max(FREE_BYTES, int(os.path.getsize(path) * max_expansion)))
    with open(path, "rb") as file:
        written = rewrite_as_pickle(Archive(file, budget), names)
    _require_known(written.names, trusted)
    whole = written.finish()
    found = RestrictedUnpickler(path, BudgetedFile(whole, whole.getbuffer().nbytes, is_compressed=False), names).load()
    check_loaded(found, trusted, SETTING)
    return found


def survey_skops(path: str, max_expansion: float = 200.0) -> Survey:
    """Return what a skops file names and which versions it keeps, without importing, making or calling any of it.

    Keeps the budgets of `load_skops`. Blocks. Never raises: for a file that cannot be read, the survey is empty.
    """
    with contextlib.suppress(Exception):  # damaged, or with parts that no model needs: loading says which
        budget = Budget(max(FREE_BYTES, int(os.path.getsize(path) * max_expansion)))
        with open(path, "rb") as file:
            written = rewrite_as_pickle(Archive(file, budget), read_allow_list())
        return survey_opcodes(written.finish())
    return Survey()


def _require_known(named: set[Global], trusted: Sequence[str]) -> None:
    """Raise Distrusted with all names that are neither listed nor `trusted`, so that the operator can trust them."""
    unknown = sorted(
        ".".join(each) for each in find_unlisted({find_current_name(*each, _PROTOCOL) for each in named}, trusted)
    )
    if unknown:
        line = write_setting_line(SETTING, trusted, unknown)
        raise Distrusted(f"the file names types that are not on the list; if you trust them: {line}")
