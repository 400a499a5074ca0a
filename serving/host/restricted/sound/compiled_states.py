"""Checks of the states of compiled objects, before an object takes its state.

Cython reads the parts of a tuple without looking how many there are, and the sizes of an array without looking how many
dimensions it has. From the ``__setstate__`` of ``neighbors/_binary_tree.pxi.tp``, ``metrics/_dist_metrics.pyx.tp``,
``tree/_tree.pyx``, ``_loss/_loss.pyx.tp`` and ``numpy/random/mtrand.pyx``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics._dist_metrics import DistanceMetric

from serving.host.restricted.sound.requirements import Check, require

_NO_STATE = "its state is none of this class"
_PARTS_OF_SEARCH, _PARTS_OF_METRIC = 13, 3
# rows, their places, nodes, and what bounds the nodes
_RANKS_OF_SEARCH = (2, 1, 1, 3)
_PLACE_OF_METRIC, _PLACE_OF_WEIGHTS = 11, 12


def _is_array(value: Any, rank: int) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == rank


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number))


def _check_search_tree(state: Any) -> None:
    require(type(state) is tuple and len(state) == _PARTS_OF_SEARCH, _NO_STATE)
    require(all(map(_is_array, state, _RANKS_OF_SEARCH)), _NO_STATE)
    require(all(map(_is_number, state[len(_RANKS_OF_SEARCH) : _PLACE_OF_METRIC])), _NO_STATE)
    weights = state[_PLACE_OF_WEIGHTS]
    require(
        isinstance(state[_PLACE_OF_METRIC], DistanceMetric) and (weights is None or _is_array(weights, 1)), _NO_STATE
    )


def _check_metric(state: Any) -> None:
    require(type(state) is tuple and len(state) == _PARTS_OF_METRIC and _is_number(state[0]), _NO_STATE)
    require(_is_array(state[1], 1) and _is_array(state[2], 2), _NO_STATE)


def _check_tree(state: Any) -> None:
    require(type(state) is dict and _is_array(state["nodes"], 1) and _is_array(state["values"], 3), _NO_STATE)
    require(_is_number(state["max_depth"]) and _is_number(state["node_count"]), _NO_STATE)


def _check_number(state: Any) -> None:
    require(type(state) is tuple and len(state) == 1 and _is_number(state[0]), _NO_STATE)


def _check_random_state(state: Any) -> None:
    """Check for a dict, or a tuple as NumPy wrote it before 1.17: with the last normal number, or without."""
    require(type(state) is dict or (type(state) is tuple and len(state) in (3, 5)), _NO_STATE)


STATE_CHECKS: dict[str, Check] = {
    **{
        f"sklearn.neighbors._{module}.{name}{bits}": _check_search_tree
        for module, name in (("kd_tree", "KDTree"), ("ball_tree", "BallTree"))
        for bits in ("", "32", "64")
    },
    "sklearn.metrics._dist_metrics.DistanceMetric": _check_metric,
    "sklearn.tree._tree.Tree": _check_tree,
    **{
        f"{module}.{name}": _check_number
        for module in ("sklearn._loss._loss", "_loss")
        for name in ("CyHuberLoss", "CyPinballLoss", "CyHalfTweedieLoss", "CyHalfTweedieLossIdentity")
    },
    "numpy.random.mtrand.RandomState": _check_random_state,
}
