"""Single bits of a real model file, flipped one at a time, and what becomes of each."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections import Counter
from pathlib import Path

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier

from serving.host.restricted import Distrusted, load_restricted
from tests.hostile.apart import Verdict, judged

KINDS = ("refused", "damaged", "answers as before", "answers otherwise", "raises when asked", "crashed", "hung")
ROWS = np.random.default_rng(0).normal(size=(200, 4))


def forest_file() -> bytes:
    """Return a small forest as joblib writes it; always the same one."""
    file = io.BytesIO()
    joblib.dump(RandomForestClassifier(10, random_state=0).fit(ROWS, np.arange(200) % 3), file)
    return file.getvalue()


def flipped(raw: bytes, count: int, seed: int = 0) -> list[bytes]:
    """Return `count` copies, each with one bit of its own flipped."""
    places = np.random.default_rng(seed).choice(8 * len(raw), size=count, replace=False)
    copies = []
    for place in map(int, places):
        copy = bytearray(raw)
        copy[place // 8] ^= 1 << place % 8
        copies.append(bytes(copy))
    return copies


def outcomes(raw: bytes, count: int, place: Path, seed: int = 0) -> list[Verdict]:
    """Load every flipped copy through the restricted loader and ask it, in children. `place` is a file to write."""
    place.write_bytes(raw)
    expected = load_restricted(str(place)).predict_proba(ROWS)

    def judge(copy: bytes) -> tuple[str, str]:
        place.write_bytes(copy)
        with warnings.catch_warnings(action="ignore"):
            try:
                model = load_restricted(str(place))
            except Distrusted as error:
                return "refused", str(error)
            except Exception as error:  # noqa: BLE001  (damage may raise anything)
                return "damaged", repr(error)
            try:
                answer = model.predict_proba(ROWS)
            except Exception as error:  # noqa: BLE001
                return "raises when asked", repr(error)
        return "answers as before" if np.array_equal(answer, expected) else "answers otherwise", ""

    return judged(flipped(raw, count, seed), judge)


def digests(raw: bytes, count: int, seed: int = 0) -> set[str]:
    """Return the SHA-256 of every flipped copy, which is what a manifest's check compares."""
    return {hashlib.sha256(copy).hexdigest() for copy in flipped(raw, count, seed)}


def counted(verdicts: list[Verdict]) -> dict[str, int]:
    """Return how many ended in each way; every way is there."""
    counts = Counter(verdict.word for verdict in verdicts)
    return {kind: counts[kind] for kind in KINDS}
