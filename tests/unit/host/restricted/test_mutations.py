"""Real model files with changed bytes and opcodes: each gives a model, a refusal or an exception."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from serving.host.restricted import Distrusted, load_restricted
from tests.hostile.apart import judged
from tests.hostile.flips import forest_file

OPCODES = [
    value[0] for name, value in vars(pickle).items() if name.isupper() and type(value) is bytes and len(value) == 1
]


def mutate(raw: bytes, count: int) -> list[bytes]:
    """Return `count` copies, each with some bytes replaced by opcodes, cut out, or copied to another place."""
    random = np.random.default_rng(7)
    copies = []
    for _ in range(count):
        copy = bytearray(raw)
        for _ in range(random.integers(1, 5)):
            place, other, length = (int(each) for each in random.integers(0, [len(raw) - 64, len(raw) - 64, 40]))
            match random.integers(3):
                case 0:
                    copy[place] = int(random.choice(OPCODES))
                case 1:
                    del copy[place : place + length]
                case 2:
                    copy[place:place] = copy[other : other + length]
        copies.append(bytes(copy))
    return copies


def assert_survives(raw: bytes, count: int, path: Path) -> None:
    def judge(copy: bytes) -> tuple[str, str]:
        path.write_bytes(copy)
        try:
            load_restricted(str(path))
        except Distrusted:
            return "refused", ""
        except Exception as error:  # noqa: BLE001  (damage may raise anything)
            return "raised", type(error).__name__
        return "loaded", ""

    verdicts = judged(mutate(raw, count), judge, megabytes=512)
    words = [verdict.word for verdict in verdicts]
    print({word: words.count(word) for word in sorted(set(words))})
    assert set(words) <= {"refused", "raised", "loaded"}
    assert len(words) == count


def test_a_mutated_model_never_ends_the_process(tmp_path: Path) -> None:
    assert_survives(forest_file(), 200, tmp_path / "file")


@pytest.mark.soak
def test_many_mutated_models_never_end_the_process(tmp_path: Path) -> None:
    assert_survives(forest_file(), 5000, tmp_path / "file")
