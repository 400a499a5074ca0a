"""Every member of scikit-learn's closed lists is known: splitters, scorers, functions of one argument, kernels."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import joblib
import pytest

from serving.host.restricted import Distrusted, check_loaded, load_restricted
from tests.sound import Fitted, members

SPLITTERS, LAST = 20, 40


def test_each_splitter_and_some_of_the_rest_are_known(tmp_path: Path) -> None:
    every = list(members())
    some = every[:SPLITTERS] + every[SPLITTERS:-LAST:7] + every[-LAST:]  # the last: distributions, requests, callbacks
    assert list_refused(some, tmp_path / "model") == []


@pytest.mark.soak
def test_each_member_is_known(tmp_path: Path) -> None:
    assert list_refused(members(), tmp_path / "model") == []


def list_refused(models: Iterable[Fitted], path: Path) -> list[str]:
    found, tried = [], 0
    for fitted in models:
        with warnings.catch_warnings(action="ignore"):  # pickle asks old modules of NumPy for functions
            joblib.dump(fitted.estimator, path)
        tried += 1
        try:
            check_loaded(load_restricted(str(path)))
        except Distrusted as error:
            found.append(f"{fitted}: {error}")
    assert tried > SPLITTERS
    return found
