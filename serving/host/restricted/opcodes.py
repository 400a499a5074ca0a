"""Lists what a pickle names, and which versions it keeps, from its opcodes: nothing is imported, made or called.

What it finds decides in which environment a file is loaded, and stands in texts. It never decides that a file may be
loaded: that is for `unpickler`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from serving.host.restricted.allow_list import Global, find_current_name
from serving.host.restricted.array_rules import count_elements
from serving.host.restricted.piecewise_file import LONGEST_KEPT_BYTES, PiecewiseFile
from serving.host.restricted.stack_machine import MadeObject, StackMachine

# ten times as many as the largest models have; to follow them takes seconds
MOST_OPCODES = 20_000_000
MOST_NESTED = 64
_MOST_KEPT = 64
_MOST_CALLS = 8
_ARRAY_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_DTYPE = re.compile(r"[biufcmMSUVO]\d{1,9}")
_CATBOOST = b"CBM1"
# CatBoost writes from which tag of its repository it was built, in the text `catboost_version_info`
_CATBOOST_VERSION = re.compile(rb"Branch: tags/v(\d{1,4}(?:\.\d{1,4}){1,3})\s")
_CATBOOST_VERSION_BYTES = 40
_HAS_OBJECTS = 1  # in the flags of a dtype: NumPy's NPY_ITEM_REFCOUNT


@dataclass(slots=True)
class Survey:
    """What the opcodes of a file contain. `is_whole` is False if they were not followed to the end of the file.

    `names` are today's names, in the order of the file. `has_bytes_of_python_2` says that the file has texts that only
    Python 2 writes. `sklearn_versions` are the versions of scikit-learn in the states of estimators, that of the
    outermost estimator last. `numpy_major` is the NumPy that wrote the file, 1 or 2, as far as its names show that.
    `handles` are the models inside boosters of XGBoost and LightGBM, of long ones both ends. `catboost_version` is the
    CatBoost that trained the models inside. `outermost` is the class of the object in the file.
    """

    names: list[Global] = field(default_factory=list)
    sklearn_versions: list[str] = field(default_factory=list)
    numpy_major: int | None = None
    has_bytes_of_python_2: bool = False
    handles: list[bytes] = field(default_factory=list)
    catboost_version: str | None = None
    outermost: Global | None = None
    is_whole: bool = False

    @property
    def sklearn_version(self) -> str | None:
        """The scikit-learn that wrote the outermost estimator."""
        return self.sklearn_versions[-1] if self.sklearn_versions else None


def survey_opcodes(file: Any) -> Survey:
    """Return what the joblib or pickle file contains that `file` reads with `read1`; see `reading.survey_file`.

    Never raises for the content of the file. For a damaged file it returns what it found before the damage.
    """
    survey = Survey()
    try:
        found = _Surveyor(PiecewiseFile(file), survey, iter(range(MOST_OPCODES)), {}, 0).run()
        survey.is_whole = True
        if type(found) is MadeObject and type(found.maker) is _NamedGlobal:
            survey.outermost = found.maker.name
    except Exception:  # noqa: BLE001, S110  (a damaged file may raise anything; what was found before is kept)
        pass
    return survey


@dataclass(slots=True, eq=False)
class _NamedGlobal:
    """The symbol for a class or function that the file names."""

    name: Global


class _Surveyor(StackMachine):
    """Notes the names and versions in one pickle, and in the pickles inside it. `known` are the names noted so far."""

    __slots__ = ("_depth", "_known", "_survey")

    def __init__(
        self,
        source: PiecewiseFile,
        survey: Survey,
        budget: Iterator[int],
        known: dict[Global, _NamedGlobal],
        depth: int,
    ) -> None:
        if depth > MOST_NESTED:
            raise ValueError("nested too often")
        super().__init__(source, budget)
        self._survey = survey
        self._depth = depth
        self._known = known

    def note_name(self, module: Any, name: Any) -> _NamedGlobal:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is no text")
        if f"{module}.".startswith("numpy._core."):
            self._survey.numpy_major = 2
        elif f"{module}.".startswith("numpy.core.") and self._survey.numpy_major is None:
            self._survey.numpy_major = 1
        found = find_current_name(module, name, self.protocol)
        if found not in self._known:
            self._known[found] = _NamedGlobal(found)
            self._survey.names.append(found)
        return self._known[found]

    def note_state(self, target: Any, state: Any) -> None:
        if type(state) is not dict:
            return
        if state:
            self._note_versions(state)
        if type(target) is MadeObject and type(target.maker) is _NamedGlobal and target.maker.name == _ARRAY_WRAPPER:
            self._skip_array(state)

    def note_bytes_of_python_2(self) -> None:
        self._survey.has_bytes_of_python_2 = True

    def take_bytes(self, count: int) -> bytes:
        """Return both ends of the content of an object; in a model of CatBoost find its version, which is between."""
        source = self.source
        source.require(min(count, len(_CATBOOST)))
        if count <= LONGEST_KEPT_BYTES or not source.data.startswith(_CATBOOST, source.at):
            return source.take_ends(count)
        before = b""
        for piece in source.iterate_pieces(count):
            text = before + piece
            found = _CATBOOST_VERSION.search(text)
            if found:
                self._survey.catboost_version = found[1].decode()
            before = text[-_CATBOOST_VERSION_BYTES:]
        return _CATBOOST

    def _note_versions(self, state: dict[str, Any]) -> None:
        version, content = state.get("_sklearn_version"), _find_content(state.get("handle"))
        versions, handles = self._survey.sklearn_versions, self._survey.handles
        if isinstance(version, str) and version not in versions[-1:]:
            versions[:] = [each for each in versions[-_MOST_KEPT:] if each != version] + [version]
        if content is not None and len(handles) < _MOST_KEPT:
            handles.append(content)

    # --- arrays between the opcodes -----------------------------------------------------------------------------------

    def _skip_array(self, wrapper: dict[str, Any]) -> None:
        dtype = wrapper["dtype"]
        description = dtype.arguments[0]
        if not _DTYPE.fullmatch(description):
            raise ValueError("an array of another kind")
        kind, size = description[0], int(description[1:])
        if kind == "O" or _has_objects(dtype.state):
            _Surveyor(self.source, self._survey, self.budget, self._known, self._depth + 1).run()
            return
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self.source.skip(self.source.take_number(1))
        count = count_elements(wrapper["shape"])
        if count is None:
            raise ValueError("an array of no shape")
        self.source.skip(count * size * (4 if kind == "U" else 1))


def _find_content(value: Any) -> bytes | None:
    """Return the bytes of an object; old protocols write them as calls: ``bytearray(encode(text, "latin-1"))``."""
    for _ in range(_MOST_CALLS):
        if type(value) is MadeObject:
            value = value.arguments
        elif type(value) is tuple:
            value = value[0] if value else None
    return value.encode("latin-1", "replace") if isinstance(value, str) else value if type(value) is bytes else None


def _has_objects(state: Any) -> bool:
    """Whether a dtype with this state has fields of objects: then joblib writes a pickle in place of the bytes."""
    return type(state) is tuple and len(state) > 7 and isinstance(state[7], int) and bool(state[7] & _HAS_OBJECTS)
