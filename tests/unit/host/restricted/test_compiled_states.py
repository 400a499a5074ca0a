"""A compiled object takes only the state that its class writes: with another one it would read past a tuple."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import _pickle
from sklearn._loss._loss import CyHuberLoss
from sklearn.metrics import DistanceMetric
from sklearn.neighbors import BallTree, KDTree
from sklearn.tree import DecisionTreeClassifier

from serving.host.restricted import Distrusted, load_restricted
from serving.host.restricted.sound.booster_states import find_state_problem

# outside of a class, which would change their names
MAKE_RANDOM, MAKE_BITS = _pickle.__randomstate_ctor, _pickle.__bit_generator_ctor
ROWS = np.random.default_rng(0).normal(size=(60, 3))
METRICS: dict[str, dict[str, Any]] = {
    "euclidean": {},
    "minkowski": {"p": 3},
    "seuclidean": {"V": np.ones(3)},
    "mahalanobis": {"VI": np.eye(3)},
}


def tree() -> Any:
    return DecisionTreeClassifier(max_depth=3).fit(ROWS, np.arange(60) % 3).tree_


SOUND: dict[str, Callable[[], Any]] = {
    "KD tree": lambda: KDTree(ROWS, leaf_size=5),
    "ball tree": lambda: BallTree(ROWS, sample_weight=np.ones(60)),
    "tree": tree,
    "random state": lambda: np.random.RandomState(0),
    **{name: lambda name=name: DistanceMetric.get_metric(name, **METRICS[name]) for name in METRICS},  # type: ignore[misc]
}


@pytest.mark.parametrize("name", SOUND)
def test_the_state_that_a_class_writes_is_taken(name: str) -> None:
    made = SOUND[name]()
    state = made.__getstate__()
    assert find_state_problem(type(made), state) is None


@pytest.mark.parametrize("name", [name for name in SOUND if name not in ("tree", "random state")])
def test_a_tuple_of_other_parts_is_refused(name: str) -> None:
    made = SOUND[name]()
    state = made.__getstate__()
    others: list[Any] = [state[:count] for count in range(len(state))]
    others += [(*state, 1), list(state), None, {}, 0]
    others += [(*state[:place], None, *state[place + 1 :]) for place in range(min(len(state), 12))]
    others += [(*state[:place], np.array(3.0), *state[place + 1 :]) for place in range(len(state)) if place != 0]
    for other in others:
        assert find_state_problem(type(made), other) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": np.float64(3.0)},
        {"nodes": np.array(3.0)},
        {"values": np.zeros(3)},
        {"max_depth": None},
        {"nodes": None},
    ],
)
def test_a_tree_of_other_parts_is_refused(changes: dict[str, Any]) -> None:
    made = tree()
    assert find_state_problem(type(made), {**made.__getstate__(), **changes}) is not None
    assert find_state_problem(type(made), tuple(made.__getstate__().values())) is not None


@pytest.mark.parametrize("state", [(), (0.5, 1), ("0.5",), [0.5], None])
def test_a_loss_takes_one_number(state: Any) -> None:
    assert find_state_problem(CyHuberLoss, (0.5,)) is None
    assert find_state_problem(CyHuberLoss, state) is not None


@pytest.mark.parametrize("state", [(), [], ("MT19937",), None])
def test_random_numbers_take_a_dict_or_what_numpy_wrote_once(state: Any) -> None:
    kind = np.random.RandomState
    assert find_state_problem(kind, ("MT19937", np.zeros(624, np.uint32), 0)) is None
    assert find_state_problem(kind, ("MT19937", np.zeros(624, np.uint32), 0, 0, 0.0)) is None
    assert find_state_problem(kind, state) is not None


def test_a_file_with_such_a_state_is_refused_before_the_object_takes_it(tmp_path: Path) -> None:
    """The file says ``newObj(KDTree)`` and sets the empty tuple as its state; that ended the process."""
    maker, arguments, _ = KDTree(ROWS).__reduce__()
    written = io.BytesIO()
    written.write(b"\x80\x04")
    for each in (maker.__module__, maker.__name__):
        written.write(b"\x8c" + struct.pack("<B", len(each)) + each.encode())
    written.write(b"\x93")  # a global, by two texts
    written.write(pickle.dumps(arguments, 2)[2:-1])
    written.write(b"R)b.")  # call, an empty tuple, set the state
    (tmp_path / "blob").write_bytes(written.getvalue())
    with pytest.raises(Distrusted, match="KDTree that is not sound: its state is none of this class"):
        load_restricted(str(tmp_path / "blob"))


def test_random_numbers_as_numpy_1_wrote_them_load(tmp_path: Path) -> None:
    """With their source comes the function that makes it of its name."""
    state = np.random.RandomState(7).get_state(legacy=False)

    class Written:
        def __reduce__(self) -> Any:
            return MAKE_RANDOM, ("MT19937", MAKE_BITS), state

    (tmp_path / "blob").write_bytes(pickle.dumps(Written(), 4))
    assert load_restricted(str(tmp_path / "blob")).randint(1 << 30) == np.random.RandomState(7).randint(1 << 30)
