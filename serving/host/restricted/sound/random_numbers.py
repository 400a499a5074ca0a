"""Checks of random generators: the place from which they read on is inside their buffer. From ``numpy/random``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.host.restricted.sound.requirements import Check, require, require_integer

_WORDS_OF_MT19937, _WORDS_OF_PHILOX = 624, 4


def _check_state(state: Any) -> None:
    require(isinstance(state, Mapping), "its state is no dict")
    inner = state["state"]
    if "pos" in inner:
        require_integer(inner["pos"], "pos", 0, _WORDS_OF_MT19937)
    if "buffer_pos" in state:
        require_integer(state["buffer_pos"], "buffer_pos", 0, _WORDS_OF_PHILOX)


def _check_random_state(random: Any) -> None:
    _check_state(random.get_state(legacy=False))


def _check_generator(generator: Any) -> None:
    _check_state(generator.bit_generator.state)


def _check_bit_generator(bits: Any) -> None:
    _check_state(bits.state)


CHECKS: dict[str, Check] = {
    "numpy.random.mtrand.RandomState": _check_random_state,
    "numpy.random._generator.Generator": _check_generator,
    "numpy.random.bit_generator.BitGenerator": _check_bit_generator,
}
