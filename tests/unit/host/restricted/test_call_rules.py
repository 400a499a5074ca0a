"""Arguments of listed functions: what models have passes, what would do harm is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import _pickle
from sklearn._loss._loss import CyHalfMultinomialLoss, CyHuberLoss

from serving.host.restricted.call_rules import are_usual_arguments

MAKE_BITS = _pickle.__bit_generator_ctor
RANDOM = ("numpy.random._pickle", "__randomstate_ctor")


@pytest.mark.parametrize("arguments", [(), ("MT19937",), (np.random.PCG64,), ("MT19937", MAKE_BITS)])
def test_a_source_of_random_numbers_is_made_of_its_name(arguments: tuple[Any, ...]) -> None:
    """NumPy before 2 also writes the function that makes it of a name."""
    assert are_usual_arguments(RANDOM, arguments)


@pytest.mark.parametrize(
    "arguments",
    [(3,), ("MT19937", "PCG64"), ("MT19937", np.random.RandomState), (b"MT19937", MAKE_BITS), ("a", MAKE_BITS, "b")],
)
def test_a_source_of_random_numbers_is_made_of_nothing_else(arguments: tuple[Any, ...]) -> None:
    assert not are_usual_arguments(RANDOM, arguments)


@pytest.mark.parametrize("module", ["_loss", "sklearn._loss._loss"])
def test_a_compiled_loss_holds_its_number_and_nothing_else(module: str) -> None:
    """Cython reads the number of a tuple without looking whether it is there."""
    name = (module, "__pyx_unpickle_CyHuberLoss")
    for written in (None, (0.9,), (np.float64(0.9),)):
        assert are_usual_arguments(name, (CyHuberLoss, 1, written))
    for other in ((), [0.9], (0.9, {"delta": 1}), ("0.9",), 0.9, np.zeros(1)):
        assert not are_usual_arguments(name, (CyHuberLoss, 1, other))
    assert not are_usual_arguments(name, (CyHuberLoss, "1", None))
    assert not are_usual_arguments(name, (CyHuberLoss, 1))
    plain = (module, "__pyx_unpickle_CyHalfMultinomialLoss")
    assert are_usual_arguments(plain, (CyHalfMultinomialLoss, 1, ()))
    assert not are_usual_arguments(plain, (CyHalfMultinomialLoss, 1, (0.9,)))


@pytest.mark.parametrize("name", ["Huber", "Log", "SquaredLoss", "Hinge"])
def test_a_loss_of_gradient_descent_holds_only_numbers(name: str) -> None:
    assert are_usual_arguments(("sklearn.linear_model._sgd_fast", name), (0.1,))
    assert not are_usual_arguments(("sklearn.linear_model._sgd_fast", name), ("0.1",))
