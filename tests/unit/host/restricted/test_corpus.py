"""Every hostile pickle of the corpus, hidden in every way, is refused without a side effect."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest

from serving.host.restricted import Distrusted, load_restricted
from tests.hostile.apart import Verdict, judged
from tests.hostile.canary import Canary
from tests.hostile.corpus import COMPRESSIONS, HIDDEN, Hostile, corpus, families, whole_files

# these claim more bytes than they have: damage, as in a file cut short, unless a compressed file could have them
DAMAGED = {
    "an array larger than its bytes",
    "an array of 72 TiB",
    "an array of 72 TiB of joblib's with objects",
}


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    made = Canary(tmp_path / "canary")
    yield made
    made.close()


def judge_with(load: Callable[[str], Any], canary: Canary, path: Path) -> Callable[[Hostile], tuple[str, str]]:
    """Return a judge that loads a case and looks at the canary."""

    def judge(case: Hostile) -> tuple[str, str]:
        path.write_bytes(case.raw)
        try:
            with warnings.catch_warnings(action="ignore"):
                load(str(path))
        except Distrusted as error:
            outcome = "refused", str(error)
        except Exception as error:  # noqa: BLE001  (damage may raise anything)
            outcome = "damaged", repr(error)
        else:
            outcome = "loaded", ""
        harm = canary.harm()
        return ("harm", harm) if harm else outcome

    return judge


def test_every_hostile_file_is_refused_without_a_side_effect(canary: Canary, tmp_path: Path) -> None:
    cases = list(corpus(canary))
    verdicts = judged(cases, judge_with(load_restricted, canary, tmp_path / "file"), megabytes=512)
    by_word = Counter(verdict.word for verdict in verdicts)
    print(f"tried {len(cases)}, {dict(by_word)}, side effects {by_word['harm']}")
    for case, verdict in zip(cases, verdicts, strict=True):
        expected = ("refused", "damaged") if case.family in DAMAGED else ("refused",)
        assert verdict.word in expected, f"{case}: {verdict}"
        assert_is_helpful(verdict)
    assert len(cases) == len(families(canary)) * len(HIDDEN) * len(COMPRESSIONS) + len(whole_files(canary)) > 2500


def assert_is_helpful(verdict: Verdict) -> None:
    """Require one line with what was seen and what would allow it, without a path of this machine."""
    if verdict.word == "refused":
        assert verdict.said.startswith("the file ")
        assert re.search(r"security\.|candidate\.max_expansion|write it anew", verdict.said)
        assert "pytest" not in verdict.said
        assert "\n" not in verdict.said


def test_the_corpus_bites(canary: Canary, tmp_path: Path) -> None:
    """Without the rules these files do harm: the test above refuses real attacks."""
    deadly = [
        "calls os:system", "calls os:remove", "calls builtins:exec", "calls socket:create_connection",
        "calls joblib.disk:delete_folder", "calls numpy:memmap", "calls numpy.f2py.crackfortran:myeval",
        "calls numpy.testing._private.utils:runstring", "calls sklearn.datasets._base:os.system",
        "GLOBAL", "INST", "OBJ", "a random state of a callable", "a state that is a function",
        "a state that is text", "an old wrapper", "the old zip format",
    ]  # fmt: skip
    cases = [case for case in corpus(canary, ("plain",)) if case.family in deadly and case.hidden in ("alone", "whole")]
    verdicts = judged(cases, judge_with(joblib.load, canary, tmp_path / "file"))
    harmless = [str(case) for case, verdict in zip(cases, verdicts, strict=True) if verdict.word != "harm"]
    assert (len(cases), harmless) == (len(deadly), [])
