"""Sound models with something in their state changed: not bytes, but what the attributes of their objects hold.

Compiled code trusts that sizes agree and that indices are in range. A mutant that passes the checks is asked everything
a model can be asked; what it answers does not matter, that the process is still there does.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import re
import sys
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import joblib
import numpy as np
from scipy import sparse

from benchmarks.lenient_import import import_leniently
from serving.host.nested_estimators import limit_to_one_thread
from serving.host.restricted import Distrusted, check_answers, check_loaded
from serving.host.restricted.sound.booster_states import find_state_problem
from tests.hostile.apart import Verdict, judged

METHODS = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "transform",
    "score_samples",
    "kneighbors",
    "apply",
    "inverse_transform",
)
SECONDS, MEGABYTES = 10, 2048
MOST_CHANGES = 3
_NUMBERS = (0, -1, 1, 2, 7, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 62, -(1 << 31), 0.5, -1.0, 1e300, float("nan"))


@dataclass(frozen=True)
class Sound:
    """A model as bytes, and rows to ask it."""

    label: str
    raw: bytes
    rows: Any


@dataclass(frozen=True)
class Mutant:
    """One change to one model, both by number: what it is is found out in the process that makes it."""

    model: int
    seed: int


def written(models: Iterable[Any]) -> list[Sound]:
    """Return models as bytes. Fitting uses libraries that must not be forked: call this in a process of its own."""
    found = []
    for each in models:
        file = io.BytesIO()
        joblib.dump(each.estimator, file)
        found.append(Sound(each.label, file.getvalue(), each.rows))
    return found


def survived(models: Sequence[Sound], mutants: Sequence[Mutant]) -> list[Verdict]:
    """Return what became of each mutant: ``unmade``, ``refused``, ``raised``, ``answered``, ``hung`` or ``crashed``."""

    def judge(mutant: Mutant) -> tuple[str, str]:
        sound = models[mutant.model]
        model = joblib.load(io.BytesIO(sound.raw))
        random = np.random.default_rng(mutant.seed)
        try:
            changes = [mutate(model, random) for _ in range(random.integers(1, MOST_CHANGES + 1))]
            said = f"{sound.label}: {', '.join(changes)}"
        except Exception as error:  # noqa: BLE001  (compiled objects refuse a state that is too strange)
            return "unmade", f"{sound.label}: {error!r}"
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            try:
                check_loaded(model)
                limit_to_one_thread(model)
                check_answers(model)
            except Distrusted as error:
                return "refused", f"{said}: {error}"
            return ask(model, sound.rows), said

    return judged(mutants, judge, seconds=SECONDS, megabytes=MEGABYTES)


def ask(model: Any, rows: Any) -> str:
    """Ask a model by every method for one row and for all of them; return how that ended."""
    outcome = "raised"
    one = rows.iloc[:1] if hasattr(rows, "iloc") else rows[:1]
    for method in METHODS:
        for batch in (one, rows):
            try:
                getattr(model, method)(batch)
                outcome = "answered"
            except Exception:  # noqa: BLE001  (a mutant may raise anything)
                continue
    return outcome


# --- changing something -----------------------------------------------------------------------------------------------


def mutate(model: Any, random: np.random.Generator) -> str:
    """Change one thing somewhere inside of `model`; return what."""
    owners = [each for each in parts(model) if attributes(each)]
    owner = owners[random.integers(len(owners))]
    names = sorted(attributes(owner))
    name = names[random.integers(len(names))]
    value = attributes(owner)[name]
    changed, how = changed_value(value, random)
    if hasattr(owner, "__dict__"):
        vars(owner)[name] = changed
    else:
        replace_part(model, owner, made_anew(owner, name, changed))
    return f"{type(owner).__name__}.{name} {how}"


def parts(model: Any) -> list[Any]:
    """Return every object inside of `model`, each once, in a fixed order."""
    found: list[Any] = []
    seen: dict[int, Any] = {}
    waiting = [model]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (str, bytes, int, float, type, types.FunctionType, np.generic, np.ufunc)):
            continue
        seen[id(one)] = one
        if isinstance(one, np.ndarray):
            waiting.extend(one.ravel().tolist() if one.dtype.kind == "O" else ())
        elif isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, (list, tuple, set, frozenset)):
            waiting.extend(one)
        else:
            found.append(one)
            waiting.extend(attributes(one).values())
    return found


def attributes(one: Any) -> dict[str, Any]:
    """Return what an object holds by name: its attributes, or its state where it is compiled."""
    if hasattr(one, "__dict__"):
        return vars(one)
    state = one.__getstate__() if type(one).__module__.startswith("sklearn.") else None
    if isinstance(state, tuple):
        return {str(place): value for place, value in enumerate(state)}
    return state if isinstance(state, dict) else {}


def made_anew(one: Any, name: str, value: Any) -> Any:
    """Return a compiled object with something else in its state: a second state for one would write past its memory."""
    kind, arguments, *_ = one.__reduce__()
    state = one.__getstate__()
    if isinstance(state, tuple):
        state = tuple(value if str(place) == name else each for place, each in enumerate(state))
    else:
        state = {**state, name: value}
    problem = find_state_problem(type(one), state)  # as the loader does first
    if problem is not None:
        raise Distrusted(problem)
    fresh = kind(*arguments)
    fresh.__setstate__(state)
    return fresh


def replace_part(model: Any, old: Any, new: Any) -> None:
    """Put one object where another is held, by an attribute or in a list or array that is one."""
    for owner in parts(model):
        for name, value in list(attributes(owner).items()) if hasattr(owner, "__dict__") else ():
            if value is old:
                vars(owner)[name] = new
            elif isinstance(value, list):
                vars(owner)[name] = [new if each is old else each for each in value]


def changed_value(value: Any, random: np.random.Generator) -> tuple[Any, str]:
    """Return something else in the place of a value, and a word for it."""
    choices: list[Callable[[], tuple[Any, str]]] = [lambda: (None, "is None"), partial(number, random)]
    if isinstance(value, np.ndarray):
        choices = [lambda: changed_array(value, random)] * 6 + choices
    elif sparse.issparse(value):
        choices = [lambda: changed_sparse(value, random)] * 6
    elif isinstance(value, bool) or value is None:
        choices += [lambda: (not value, "is turned over"), lambda: (np.zeros(3), "is an array")]
    elif isinstance(value, (int, float, np.number)):
        choices = [partial(number, random)] * 4 + [
            lambda: (value + 1, "is one more"),
            lambda: (value - 1, "is one less"),
        ]
    elif isinstance(value, dict):
        choices = [lambda: changed_dict(value, random)] * 6
    elif isinstance(value, (list, tuple)):
        choices = [lambda: changed_sequence(value, random)] * 6
    return choices[random.integers(len(choices))]()


def number(random: np.random.Generator) -> tuple[Any, str]:
    """Return any number."""
    found = _NUMBERS[random.integers(len(_NUMBERS))]
    return found, f"is {found}"


def changed_array(array: Any, random: np.random.Generator) -> tuple[Any, str]:
    """Return another array: shorter, longer, of other numbers, of another type or shape."""
    if array.dtype.names:
        return changed_table(array, random)
    copied = np.array(array)
    ways: list[Callable[[], Any]] = [
        lambda: copied[:-1],
        lambda: copied[:0],
        lambda: copied[::-1],
        lambda: copied[:1],
        lambda: copied.T,
        lambda: np.concatenate([copied, copied]) if copied.ndim else copied,
        copied.ravel,
        lambda: copied[None],
        lambda: copied[..., :-1] if copied.ndim > 1 else copied[1:],
        lambda: np.repeat(copied, 2, axis=-1),
        copied.tolist,
        lambda: copied.astype(np.float32),
        lambda: copied.astype(np.int64),
        lambda: copied.astype(np.int32),
        lambda: copied.astype(object),
        lambda: copied[..., ::2],
        lambda: np.asfortranarray(copied),
        lambda: copied * 0 - 1,
        *[lambda: with_one_changed(copied, random)] * 8,
    ]
    try:
        place = int(random.integers(len(ways)))
        return ways[place](), f"changed in way {place}"
    except (TypeError, ValueError, IndexError, OverflowError):
        return copied[:0] if copied.ndim else None, "is empty"


def with_one_changed(array: Any, random: np.random.Generator) -> Any:
    """Return an array with one other number in it."""
    flat = array.reshape(-1)
    if array.size and array.dtype.kind in "iufb":
        with np.errstate(all="ignore"):
            flat[random.integers(array.size)] = np.array(number(random)[0]).astype(array.dtype)
    return array


def changed_table(table: Any, random: np.random.Generator) -> tuple[Any, str]:
    """Return a structured array with a number changed, or another length."""
    copied = np.array(table)
    name = copied.dtype.names[random.integers(len(copied.dtype.names))]
    if not copied.size or random.random() < 0.3:
        return copied[: max(0, copied.size - 1)], "is shorter"
    at = random.integers(copied.size)
    if copied.dtype[name].kind in "iufb":
        with np.errstate(all="ignore"):
            copied.reshape(-1)[name][at] = np.array(number(random)[0]).astype(copied.dtype[name])
    return copied, f"has another {name} at {at}"


def changed_sparse(matrix: Any, random: np.random.Generator) -> tuple[Any, str]:
    """Return a sparse matrix with one of its arrays changed."""
    copied = copy.deepcopy(matrix)
    arrays = [name for name, value in sorted(vars(copied).items()) if isinstance(value, np.ndarray)]
    if not arrays:
        return None, "is None"
    name = arrays[random.integers(len(arrays))]
    vars(copied)[name], how = changed_array(vars(copied)[name], random)
    return copied, f"{name} {how}"


def changed_dict(found: dict[Any, Any], random: np.random.Generator) -> tuple[Any, str]:
    """Return a dict with an item less, or another value."""
    copied = dict(found)
    if not copied:
        return {"a": 1}, "has an item"
    key = list(copied)[random.integers(len(copied))]
    if random.random() < 0.3:
        del copied[key]
        return copied, f"lacks {key!r}"
    copied[key], how = changed_value(copied[key], random)
    return copied, f"[{key!r}] {how}"


def changed_sequence(found: Any, random: np.random.Generator) -> tuple[Any, str]:
    """Return a list or tuple that is shorter, longer, of the other kind, or has something changed in it."""
    kind = type(found) if type(found) in (list, tuple) else tuple
    ways: list[Callable[[], tuple[Any, str]]] = [
        lambda: (kind(found[:-1]), "is shorter"),
        lambda: (kind([*found, *found]), "is longer"),
        lambda: (kind(), "is empty"),
        lambda: (tuple(found) if kind is list else list(found), "is of the other kind"),
        lambda: (kind(found[::-1]), "is reversed"),
    ]
    if found and random.random() < 0.6:
        at = int(random.integers(len(found)))
        inner, how = changed_value(found[at], random)
        return kind([*found[:at], inner, *found[at + 1 :]]), f"[{at}] {how}"
    return ways[random.integers(len(ways))]()


# --- a process of its own ---------------------------------------------------------------------------------------------


def main() -> int:
    """Try so many mutants, from a seed, of usual models or (``all``) of every model; print what came of them.

    Forks before anything is computed here: libraries that use OpenMP do not survive a fork.
    """
    count, seed, which = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    models = _fitted_apart(which)
    groups: dict[str, list[int]] = {}
    for place, model in enumerate(models):
        groups.setdefault(re.split(r"[ (#]", model.label)[0], []).append(place)
    random = np.random.default_rng(seed)
    names = sorted(groups)
    mutants = []
    for _ in range(count):
        group = groups[names[random.integers(len(names))]]
        mutants.append(Mutant(group[random.integers(len(group))], int(random.integers(1 << 31))))
    verdicts = survived(models, mutants)
    words = Counter(verdict.word for verdict in verdicts)
    ends = [
        f"{models[mutant.model].label}, seed {mutant.seed}: {verdict.said}"
        for mutant, verdict in zip(mutants, verdicts, strict=True)
        if verdict.word == "crashed"
    ]
    print(json.dumps({"models": len(models), "words": words, "crashes": ends}))
    return 0


def _fitted_apart(which: str) -> list[Sound]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        sound = import_leniently("tests.sound")  # an older scikit-learn has fewer classes
        warnings.simplefilter("ignore")
        found = sound.every_model() if which == "all" else sound.every_kind()
        answers = (each for each in found if any(hasattr(each.estimator, method) for method in METHODS))
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(written(answers), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        models: list[Sound] = pickle.load(pipe)
    os.waitpid(child, 0)
    return models


if __name__ == "__main__":
    sys.exit(main())
