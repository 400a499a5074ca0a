"""What the files of scikit-learn's models name, and what their attributes hold: ``python -m benchmarks.allow_list``.

Fits every estimator there is with every option, writes it with joblib and with every pickle protocol from 2 on, notes
what reading it back names, makes and calls and what the attributes of everything in it hold, and writes
``serving/host/restricted/lists/scikit-learn-X.Y.json``, which the restricted loader goes by. ``--add`` keeps what is in
that list already: run it once with the oldest libraries that this scikit-learn works with, and once with the newest
and ``--add``. Blocks for some minutes. Read the difference before committing it: every line is something a file may do.
"""

from __future__ import annotations

import argparse
import inspect
import io
import itertools
import json
import pickle
import sys
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import joblib
import sklearn
from joblib.numpy_pickle import NumpyUnpickler
from sklearn.utils import all_estimators

from benchmarks import run
from benchmarks.attribute_list import AttributeRecorder
from benchmarks.function_homes import add_homes
from benchmarks.lenient_import import import_leniently
from benchmarks.list_union import unite_lists
from serving.host.restricted.allow_list import find_current_name
from serving.host.restricted.fitting_only import METHOD_GETTER, find_stand_in, is_stand_in_class
from serving.host.restricted.pandas_parts import PandasReader, find_part
from serving.host.restricted.pandas_values import PandasGlobal, PandasPart

PROTOCOLS = (2, 3, 4, 5)
# what a joblib file uses for itself, and what estimators may hold beside arrays
ALWAYS = (
    *(
        "joblib.numpy_pickle.NumpyArrayWrapper",
        "numpy.matrix",
        "numpy.ndarray",
        "numpy.ma.core.MaskedArray",
    ),
    *("builtins.bool", "builtins.complex", "builtins.float", "builtins.int", "builtins.object", "builtins.str"),
    *("builtins.bytes", "builtins.dict", "builtins.list", "builtins.set", "builtins.frozenset", "builtins.tuple"),
)


class Recorder(NumpyUnpickler):  # type: ignore[misc]  # joblib has no types
    """Reads a file of ours and notes what it names, makes and calls."""

    dispatch: ClassVar[dict[int, Any]] = dict(NumpyUnpickler.dispatch)

    def __init__(self, file: Any) -> None:
        super().__init__("", file, ensure_native_byte_order=True)
        self.values: set[str] = set()
        self.created: set[str] = set()
        self.called: dict[str, set[str]] = {}
        self.names: dict[int, str] = {}
        self._parts = PandasReader()

    def find_class(self, module: str, name: str) -> Any:
        asked = find_current_name(module, name, self.proto)
        instead = find_stand_in(asked)
        if instead is not None:
            return instead
        part = find_part(asked)
        if part is not None:
            return part
        found = super().find_class(module, name)
        full = ".".join(asked)
        self.values.add(full)
        self.names[id(found)] = full
        return found

    def load_newobj(self) -> None:
        if isinstance(self.stack[-2], PandasGlobal):
            arguments, kind = self.stack.pop(), self.stack.pop()
            self.append(self._parts.start(kind, arguments, len(self.memo)))
            return
        if is_stand_in_class(self.stack[-2]):
            self.stack[-1] = ()
        else:
            self.created.add(self.names[id(self.stack[-2])])
        super().load_newobj()

    def load_reduce(self) -> None:
        arguments, function = self.stack[-1], self.stack[-2]
        if isinstance(function, PandasGlobal):
            self.stack.pop()
            self.stack[-1] = self._parts.call(function, arguments, len(self.memo))
            return
        if function is find_stand_in(METHOD_GETTER):
            self.stack.pop()
            self.stack[-1] = arguments[0]
            return
        classes = {self.names[id(value)] for value in arguments if id(value) in self.names}
        self.called.setdefault(self.names[id(function)], set()).update(classes)
        super().load_reduce()

    def load_build(self) -> None:
        target = self.stack[-2]
        if not isinstance(target, PandasPart):
            super().load_build()
            return
        self.stack[-2:] = [made := self._parts.finish(target, self.stack[-1])]
        self._parts.replace(target, made, self.memo)

    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build


def main() -> int:
    """Fit, write, read, and write the list."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--add", action="store_true", help="keep what is in the list of this version already")
    keeps = parser.parse_args().add
    warnings.simplefilter("ignore")
    values, created, called = set(ALWAYS), set[str](), dict[str, set[str]]()
    attributes = AttributeRecorder()
    for model, found in _written():
        values |= found.values
        created |= found.created
        for name, classes in found.called.items():
            called.setdefault(name, set()).update(classes)
        if model is not None:
            attributes.note(model, found.names)
    created |= {f"{kind.__module__}.{name}" for name, kind in all_estimators() if not inspect.isabstract(kind)}
    created |= {"joblib.numpy_pickle.NumpyArrayWrapper"}
    created -= called.keys()
    version = ".".join(sklearn.__version__.split(".")[:2])
    place = run.ROOT / "serving" / "host" / "restricted" / "lists" / f"scikit-learn-{version}.json"
    place.parent.mkdir(exist_ok=True)
    document: dict[str, Any] = {
        "called": {name: sorted(called[name]) for name in sorted(called)},
        "created": sorted(created),
        "values": sorted(values - created - called.keys()),
        "schema": attributes.document(values | created),
    }
    if keeps:
        document = unite_lists(json.loads(place.read_text(encoding="utf-8")), document)
    document = add_homes(document)
    place.write_text(_compact(document) + "\n", encoding="utf-8")
    classes = document["schema"]["classes"]
    print(f"{place.relative_to(run.ROOT)}: {len(values | created)} globals, {len(called)} of them called")
    print(f"{len(classes)} classes, {sum(map(len, classes.values()))} attributes that hold more than numbers")
    return 0


def _compact(document: Any) -> str:
    """Return JSON with one line for each attribute, so that a difference can be read."""
    text = json.dumps(document, indent=1)
    lines: list[str] = []
    depth = 0
    for line in text.splitlines():
        stripped = line.strip()
        if depth:
            lines[-1] += stripped + (" " if stripped.endswith(",") and not stripped.startswith("]") else "")
        else:
            lines.append(line)
        if stripped.endswith("["):
            depth += line.startswith("    ")  # what an attribute may hold
        elif depth and stripped.startswith("]"):
            depth -= 1
    return "\n".join(lines)


def _written() -> Iterator[tuple[Any, Recorder]]:
    """Yield each model as it was read, and what its file named; None for one whose attributes are its owner's own."""
    sound = import_leniently("tests.sound")  # an older scikit-learn has fewer classes
    subjects = itertools.chain(
        ((subject, True) for subject in sound.every_model()), ((subject, False) for subject in sound.own_attributes())
    )
    for subject, is_usual in subjects:
        try:
            file = io.BytesIO()
            joblib.dump(subject.estimator, file)
            raws = [file.getvalue(), *(pickle.dumps(subject.estimator, protocol) for protocol in PROTOCOLS)]
        except Exception as error:  # noqa: BLE001 - what cannot be written cannot be published either
            print(f"{subject}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        for raw in raws:
            recorder = Recorder(io.BytesIO(raw))
            try:
                model = recorder.load()
            except Exception as error:  # noqa: BLE001 - parts of pandas in a form that is not read here
                print(f"{subject}: {type(error).__name__}: {error}", file=sys.stderr)
                break
            yield model if is_usual else None, recorder


if __name__ == "__main__":
    sys.exit(main())
