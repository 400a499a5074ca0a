"""Explains why the names in a file are refused, all in one text, and what to do about them.

Names that no setting can allow come first, because nothing else helps then. This module decides nothing: it writes
texts about files that were refused before.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import accumulate

import sklearn

from serving.host.foreign_files import HOW_TO_FIND_MODULES
from serving.host.restricted.allow_list import AllowList, Global, read_allow_list
from serving.host.restricted.fitting_only import find_stand_in
from serving.host.restricted.opcodes import Survey
from serving.host.restricted.pandas_parts import find_part, find_table_part
from serving.host.restricted.unpickler import ALARMING

MOST_CHARACTERS = 1500

# libraries that pickle the code of functions and classes, and functions that make classes and functions of code
_CODE_WRITERS = frozenset({"cloudpickle", "dill"})
_CODE_MAKERS = frozenset(
    ("builtins", name) for name in ("type", "eval", "exec", "compile", "getattr", "setattr", "__import__", "globals")
) | {("types", name) for name in ("CodeType", "FunctionType", "LambdaType", "ModuleType", "MethodType", "CellType")}
_THREE_WAYS = (
    'sign the version (security.trust = "signed"), set security.trust = "any", which loads it sandboxed, '
    "or put the class or function into a module that is installed here and save the model again"
)


def explain_names(survey: Survey, trusted: Sequence[str] = (), setting: str = "security.pickle_trusted") -> str | None:
    """Return why a file with these names is refused, and the line of settings that would allow it, if one can.

    `trusted` are the names that the operator trusts already; they stay in the line. None if every name is listed.
    """
    unlisted = find_unlisted(survey.names, trusted)
    if not unlisted:
        return None
    carried = [name for name in unlisted if _carries_code(name)]
    own = [name for name in unlisted if name[0] == "__main__"]
    others = [name for name in unlisted if name not in carried and name not in own]
    if carried:
        besides = _join_names(own + others)
        more = f"; it also names {besides}" if besides else ""
        names = _join_names(carried)
        return f"the file brings code of its own ({names}), which no list of names allows: {_THREE_WAYS}{more}"
    if own:
        rest = f"; it also names {_join_names(others)}" if others else ""
        return (
            f"the file names a class or function of the script that saved it ({_join_names(own)}): put it into a "
            f"module that is installed here, save the model again, and name that in {setting}{rest}"
        )
    rest = "" if survey.is_whole else "; the file was not followed to its end and may name more"
    return _explain_others(others, trusted, setting) + rest


def find_unlisted(names: Iterable[Global], trusted: Sequence[str] = ()) -> list[Global]:
    """Return the names among these that restricted loading refuses, in the same order."""
    known = read_allow_list().with_trusted(tuple(trusted))
    listed = list(names)
    found = [name for name in listed if "." in name[1] or not _is_known(name, known)]
    others = [name for name in found if find_table_part(name) is None]
    # where a class is trusted, it may hold tables
    return others if others or not known.trusted.isdisjoint(listed) else found


def _is_known(name: Global, known: AllowList) -> bool:
    is_listed = name in known.values or name in known.trusted
    return is_listed or find_stand_in(name) is not None or find_part(name) is not None


def find_moved(names: Iterable[Global]) -> list[str]:
    """Return the full names among these that the installed scikit-learn lacks: another version has them."""
    return [".".join(name) for name in names if name[0].partition(".")[0] == "sklearn" and not _has_sklearn(name)]


def _explain_others(names: list[Global], trusted: Sequence[str], setting: str) -> str:
    full = [".".join(name) for name in names]
    line = write_setting_line(setting, trusted, full)
    alarming = [name for name in names if name[0].partition(".")[0] in ALARMING]
    if alarming:
        others = _join_names([name for name in names if name not in alarming])
        besides = f"; it also names {others}" if others else ""
        text = (
            f"the file names {_join_names(alarming)}, which no model needs and an attack would{besides}: "
            f"check where it came from ({line})"
        )
    elif len(full) == 1:
        text = f"the file names {full[0][:200]}, which is not on the list; if you trust it: {line}"
    else:
        text = f"the file names {len(full)} classes or functions that are not on the list; if you trust them: {line}"
    return text + _explain_absence(names)


def write_setting_line(setting: str, trusted: Sequence[str], names: list[str]) -> str:
    """Return the line of settings that trusts these names beside the `trusted` ones, cut to a limited length."""
    shown = _cut_names(names)
    quoted = ", ".join(map(json.dumps, (*trusted, *shown)))  # no quote in a name ends the text in settings.toml
    hidden = len(names) - len(shown)
    more = f" and {hidden} more, which are named once these are trusted" if hidden else ""
    return f"{setting} = [{quoted}]{more}"


def _explain_absence(names: list[Global]) -> str:
    """Return the part of the text about modules that cannot be imported: trusting their names alone does not help."""
    packages = dict.fromkeys(module.partition(".")[0] for module, _ in names)
    absent = [package for package in packages if not is_importable(package)]
    if not absent:
        return ""
    which = ", ".join(f"'{package[:100]}'" for package in absent[:5])
    return f"; not installed here: {which} ({HOW_TO_FIND_MODULES})"


def _carries_code(name: Global) -> bool:
    is_plain = name[1].isidentifier() and all(part.isidentifier() for part in name[0].split("."))
    return name[0].partition(".")[0] in _CODE_WRITERS or name in _CODE_MAKERS or not is_plain


def is_importable(package: str) -> bool:
    """Return True if there is a top-level module with this name; imports nothing."""
    if package in sys.modules:
        return True
    try:
        return package.isidentifier() and importlib.util.find_spec(package) is not None
    except (ImportError, ValueError, OSError):
        return False


def _has_sklearn(name: Global) -> bool:
    """Return True if scikit-learn has this name, or may have it.

    If the module is not imported, only its file is looked up.
    """
    module, last = name
    if module in sys.modules:
        return hasattr(sys.modules[module], last.partition(".")[0])
    directory, _, file = os.path.join(*sklearn.__path__, *module.split(".")[1:]).rpartition(os.sep)
    try:
        return any(found.partition(".")[0] == file for found in os.listdir(directory))
    except (OSError, ValueError):
        return False


def _cut_names(names: list[str]) -> list[str]:
    """Return the first of these names, as many as fit into a text."""
    ends = accumulate(len(name) + 4 for name in names)
    return [name for name, end in zip(names, ends, strict=True) if end <= MOST_CHARACTERS] or [names[0][:200]]


def _join_names(names: list[Global]) -> str:
    full = [".".join(name)[:200] for name in names]
    more = f" and {len(full) - 6} more" if len(full) > 6 else ""
    return ", ".join(full[:6]) + more
