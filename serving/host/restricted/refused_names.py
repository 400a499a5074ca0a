"""Why the names in a file are refused, all of them at once, and what to do: one answer instead of one for each name.

What no list of names can let in comes first, because with it nothing else helps. Nothing here decides what is loaded.
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
from serving.host.restricted.allow_list import Allowed, Global, allowed
from serving.host.restricted.fitting_only import stand_in
from serving.host.restricted.opcodes import Survey
from serving.host.restricted.pandas_parts import find_part
from serving.host.restricted.unpickler import ALARMING

MOST_CHARACTERS = 1500

# libraries that pickle the code of functions and classes; what makes classes and functions out of it
_CODE_WRITERS = frozenset({"cloudpickle", "dill"})
_CODE_MAKERS = frozenset(
    ("builtins", name) for name in ("type", "eval", "exec", "compile", "getattr", "setattr", "__import__", "globals")
) | {("types", name) for name in ("CodeType", "FunctionType", "LambdaType", "ModuleType", "MethodType", "CellType")}
_THREE_WAYS = (
    'sign the version (security.trust = "signed"), set security.trust = "any", which loads it sandboxed, '
    "or put the class or function into a module that is installed here and save the model again"
)


def explain_names(survey: Survey, trusted: Sequence[str] = (), setting: str = "security.pickle_trusted") -> str | None:
    """Return why a file with these names is refused, and the one line that would change it, where one can.

    `trusted` are the names that the operator trusts already, which stay in the line. None where every name is listed.
    """
    unlisted = find_unlisted(survey.names, trusted)
    if not unlisted:
        return None
    carried = [name for name in unlisted if _carries_code(name)]
    own = [name for name in unlisted if name[0] == "__main__"]
    others = [name for name in unlisted if name not in carried and name not in own]
    if carried:
        besides = _join(own + others)
        more = f"; it also names {besides}" if besides else ""
        return (
            f"the file brings code of its own ({_join(carried)}), which no list of names lets in: {_THREE_WAYS}{more}"
        )
    if own:
        rest = f"; it also names {_join(others)}" if others else ""
        return (
            f"the file names a class or function of the script that saved it ({_join(own)}): put it into a module that "
            f"is installed here, save the model again, and name that in {setting}{rest}"
        )
    rest = "" if survey.is_whole else "; the file was not followed to its end and may name more"
    return _explain_others(others, trusted, setting) + rest


def find_unlisted(names: Iterable[Global], trusted: Sequence[str] = ()) -> list[Global]:
    """Return which of these names restricted loading refuses, in the same order."""
    known = allowed().trusting(tuple(trusted))
    return [name for name in names if "." in name[1] or not _is_read(name, known)]


def _is_read(name: Global, known: Allowed) -> bool:
    is_listed = name in known.values or name in known.trusted
    return is_listed or stand_in(name) is not None or find_part(name) is not None


def find_moved(names: Iterable[Global]) -> list[str]:
    """Return, in full, which of these names scikit-learn had at another place once, or will have: it has none now."""
    return [".".join(name) for name in names if name[0].partition(".")[0] == "sklearn" and not _has_sklearn(name)]


def _explain_others(names: list[Global], trusted: Sequence[str], setting: str) -> str:
    full = [".".join(name) for name in names]
    line = write_line(setting, trusted, full)
    alarming = [name for name in names if name[0].partition(".")[0] in ALARMING]
    if alarming:
        others = _join([name for name in names if name not in alarming])
        besides = f"; it also names {others}" if others else ""
        text = (
            f"the file names {_join(alarming)}, which no model needs and an attack would{besides}: "
            f"look where it came from ({line})"
        )
    elif len(full) == 1:
        text = f"the file names {full[0][:200]}, which nobody vouches for; if you do: {line}"
    else:
        text = f"the file names {len(full)} classes or functions that are not on the list; if you trust them: {line}"
    return text + _explain_absence(names)


def write_line(setting: str, trusted: Sequence[str], names: list[str]) -> str:
    """Return the line to paste that trusts these names beside those that are `trusted`, as far as there is room."""
    shown = _fit(names)
    quoted = ", ".join(map(json.dumps, (*trusted, *shown)))  # no quote in a name ends the text in settings.toml
    hidden = len(names) - len(shown)
    more = f" and {hidden} more, which are named once these are trusted" if hidden else ""
    return f"{setting} = [{quoted}]{more}"


def _explain_absence(names: list[Global]) -> str:
    """Say which modules cannot be imported here: trusting their names alone would not help."""
    packages = dict.fromkeys(module.partition(".")[0] for module, _ in names)
    absent = [package for package in packages if not _is_importable(package)]
    if not absent:
        return ""
    which = ", ".join(f"'{package[:100]}'" for package in absent[:5])
    return f"; not installed here: {which} ({HOW_TO_FIND_MODULES})"


def _carries_code(name: Global) -> bool:
    is_plain = name[1].isidentifier() and all(part.isidentifier() for part in name[0].split("."))
    return name[0].partition(".")[0] in _CODE_WRITERS or name in _CODE_MAKERS or not is_plain


def _is_importable(package: str) -> bool:
    """Say whether there is a top-level module of this name; nothing is imported for the answer."""
    if package in sys.modules:
        return True
    try:
        return package.isidentifier() and importlib.util.find_spec(package) is not None
    except (ImportError, ValueError, OSError):
        return False


def _has_sklearn(name: Global) -> bool:
    """Say whether scikit-learn has this name, or may have it; looks at files only where its module is not imported."""
    module, last = name
    if module in sys.modules:
        return hasattr(sys.modules[module], last.partition(".")[0])
    directory, _, file = os.path.join(*sklearn.__path__, *module.split(".")[1:]).rpartition(os.sep)
    try:
        return any(found.partition(".")[0] == file for found in os.listdir(directory))
    except (OSError, ValueError):
        return False


def _fit(names: list[str]) -> list[str]:
    """Return as many of these names, from the first, as a text has room for."""
    ends = accumulate(len(name) + 4 for name in names)
    return [name for name, end in zip(names, ends, strict=True) if end <= MOST_CHARACTERS] or [names[0][:200]]


def _join(names: list[Global]) -> str:
    full = [".".join(name)[:200] for name in names]
    more = f" and {len(full) - 6} more" if len(full) > 6 else ""
    return ", ".join(full[:6]) + more
