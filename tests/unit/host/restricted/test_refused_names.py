"""Refusals for names list all names at once, with one line of settings, without running code of the file."""

from __future__ import annotations

import bz2
import io
import pickle
import re
import tomllib
import zlib
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from serving.domain.version import Format
from serving.host.loading import Trust, load_model
from serving.host.model import LoadRefused, NotVouched
from serving.host.restricted import opcodes, survey_file
from serving.host.restricted.opcodes import MOST_NESTED, survey_opcodes
from serving.host.restricted.reading import BudgetedFile
from tests.hostile.opcodes import call, dtype, instance, named, value, whole, wrapped

ROWS = np.random.default_rng(0).normal(size=(200, 3))
LABELS = ROWS[:, 0] > 0


def halve(rows: Any) -> Any:
    return rows / 2


def double(rows: Any) -> Any:
    return rows * 2


def treble(rows: Any) -> Any:
    return rows * 3


def square(rows: Any) -> Any:
    return rows**2


def negate(rows: Any) -> Any:
    return -rows


def repeat(rows: Any) -> Any:
    return rows


def refusal(path: Path, raw: bytes, *trusted: str) -> str:
    path.write_bytes(raw)
    with pytest.raises(NotVouched) as caught:
        load_model(str(path), Format.PICKLE, Trust(pickle_trusted=trusted))
    return str(caught.value)


def read_line(text: str) -> list[str]:
    """Return the names in the line of settings, as settings.toml would read them."""
    found = re.search(r'security\.pickle_trusted = \["[^\]]*"\]', text)
    assert found is not None
    names = tomllib.loads(found.group())["security"]["pickle_trusted"]
    assert isinstance(names, list)
    return names


def list_names(raw: bytes) -> list[str]:
    return [
        ".".join(name) for name in survey_opcodes(BudgetedFile(io.BytesIO(raw), len(raw), is_compressed=False)).names
    ]


FEW_OPCODES = 200_000

MIXED = make_pipeline(FunctionTransformer(halve), FunctionTransformer(double))


def test_one_line_of_settings_allows_all_names(tmp_path: Path) -> None:
    raw = pickle.dumps(MIXED.fit(ROWS))
    said = refusal(tmp_path / "model", raw)
    assert read_line(said) == [f"{__name__}.halve", f"{__name__}.double"]
    assert "2 classes or functions that are not on the list" in said
    assert load_model(str(tmp_path / "model"), Format.PICKLE, Trust(pickle_trusted=read_line(said))).name == "Pipeline"


def test_the_line_keeps_what_is_trusted_already(tmp_path: Path) -> None:
    said = refusal(tmp_path / "model", pickle.dumps(MIXED), "other.Thing", f"{__name__}.double")
    assert read_line(said) == ["other.Thing", f"{__name__}.double", f"{__name__}.halve"]


def test_code_in_the_file_comes_first_with_three_remedies(tmp_path: Path) -> None:
    said = refusal(tmp_path / "model", cloudpickle.dumps([Decimal(1), FunctionTransformer(lambda rows: rows)]))
    assert said.startswith("the file brings code of its own (cloudpickle.cloudpickle._make_function")
    assert "which no list of names allows" in said
    assert 'sign the version (security.trust = "signed"), set security.trust = "any"' in said
    assert "put the class or function into a module that is installed here" in said
    assert said.endswith("it also names decimal.Decimal")
    assert "pickle_trusted" not in said


def test_a_class_made_in_the_file_is_code_of_its_own(tmp_path: Path) -> None:
    said = refusal(tmp_path / "model", whole(call(named("builtins:type"), "Mine", (), {})))
    assert said.startswith("the file brings code of its own (builtins.type)")
    assert "pickle_trusted" not in said


@pytest.mark.parametrize("name", ['mine:A", "os.system', "mine.b c:A", "sklearn.pipeline:Pipeline.fit", "mine:A]\n[x"])
def test_a_malformed_name_is_in_no_line_of_settings(tmp_path: Path, name: str) -> None:
    said = refusal(tmp_path / "model", whole(value([named("mine:B"), named(name)])))
    assert "no list of names allows" in said
    assert "pickle_trusted" not in said


def test_classes_of_the_script_are_listed_and_explained(tmp_path: Path) -> None:
    raw = whole(value([named("__main__:A"), named("__main__:B"), named("decimal:Decimal")]))
    said = refusal(tmp_path / "model", raw)
    assert "of the script that saved it (__main__.A, __main__.B): put it into a module that is installed here" in said
    assert said.endswith("it also names decimal.Decimal")


def test_alarming_names_come_before_the_line(tmp_path: Path) -> None:
    said = refusal(tmp_path / "model", whole(value([named("decimal:Decimal"), named("os:system")])))
    assert "the file names os.system, which no model needs and an attack would; it also names decimal.Decimal" in said
    assert "check where it came from" in said


def test_a_refusal_names_modules_that_are_not_installed(tmp_path: Path) -> None:
    said = refusal(tmp_path / "model", whole(value([named("mine_of_theirs.parts:A"), named("decimal:Decimal")])))
    assert read_line(said) == ["mine_of_theirs.parts.A", "decimal.Decimal"]
    assert "not installed here: 'mine_of_theirs' (the working directory is not searched: install the module" in said
    said = refusal(tmp_path / "model", whole(value([named("decimal:Decimal"), named("fractions:Fraction")])))
    assert "not installed here" not in said


def test_names_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    raw = whole(value([named(f"decimal:Decimal{number}") for number in range(500)]))
    said = refusal(tmp_path / "model", raw)
    assert f"and {500 - len(read_line(said))} more, which are named once these are trusted" in said
    assert len(said) < 2000


def test_a_skops_refusal_has_one_line_of_settings_too(tmp_path: Path) -> None:
    steps = [FunctionTransformer(each) for each in (halve, double, treble, square, negate, repeat)]
    skops.io.dump(make_pipeline(*steps).fit(ROWS), tmp_path / "model")
    with pytest.raises(NotVouched) as caught:
        load_model(str(tmp_path / "model"), Format.SKOPS, Trust(skops_trusted=("other.Thing",)))
    line = re.search(r'security\.skops_trusted = \["[^\]]*"\]', str(caught.value))
    assert line is not None
    names = tomllib.loads(line.group())["security"]["skops_trusted"]
    assert names[0] == "other.Thing"
    assert len(names) == 7
    assert load_model(str(tmp_path / "model"), Format.SKOPS, Trust(skops_trusted=names)).name == "Pipeline"


def test_a_refusal_says_when_the_file_may_name_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opcodes, "MOST_OPCODES", FEW_OPCODES)
    raw = whole(named("decimal:Decimal") + b"N0" * FEW_OPCODES)
    assert refusal(tmp_path / "model", raw).endswith("; the file was not followed to its end and may name more")
    assert "may name more" not in refusal(tmp_path / "model", whole(named("decimal:Decimal")))


# --- finding the names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_names_are_found_in_every_protocol(protocol: int) -> None:
    raw = pickle.dumps([Fraction(1, 2), {"a": (Decimal(1),)}, np.arange(3)], protocol)
    assert {"fractions.Fraction", "decimal.Decimal"} <= set(list_names(raw))


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_names_after_the_arrays_of_joblib_are_found(tmp_path: Path, compress: Any) -> None:
    forest = RandomForestClassifier(3).fit(ROWS, LABELS)
    texts = [np.array(["a", "bb"]), np.asfortranarray(ROWS), np.array([halve, "x"], dtype=object), np.array([], "f4")]
    joblib.dump([forest, texts, Fraction(1, 2)], tmp_path / "model", compress=compress)
    survey = survey_file(str(tmp_path / "model"))
    assert survey.is_whole
    assert ("fractions", "Fraction") in survey.names
    assert (__name__, "halve") in survey.names


def test_listing_names_runs_nothing(tmp_path: Path) -> None:
    place = tmp_path / "made"
    raw = whole(value([call(named("os:mkdir"), str(place)), instance(named("decimal_of_theirs:Decimal"))]))
    assert list_names(raw) == ["os.mkdir", "decimal_of_theirs.Decimal"]
    assert not place.exists()


def test_damage_ends_the_survey_but_keeps_its_names() -> None:
    whole_one = pickle.dumps([Fraction(1, 2), Decimal(1), b"x" * 1000])
    for end in range(len(whole_one)):
        list_names(whole_one[:end])
    assert list_names(whole_one[:-100]) == ["fractions.Fraction", "decimal.Decimal"]


def test_the_survey_has_budgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opcodes, "MOST_OPCODES", FEW_OPCODES)
    many = whole(b"N0" * FEW_OPCODES + named("decimal:Decimal"))
    assert list_names(many) == []
    (tmp_path / "bomb").write_bytes(bz2.compress(whole(value(b"0" * (100 << 20)) + b"0" + named("decimal:Decimal"))))
    assert survey_file(str(tmp_path / "bomb"), max_expansion=1.0).names == []
    assert survey_file(str(tmp_path / "nothing")).names == []
    (tmp_path / "bomb").write_bytes(zlib.compress(whole(named("decimal:Decimal")))[:-4])
    survey_file(str(tmp_path / "bomb"))


def test_the_depth_of_object_arrays_is_limited() -> None:
    for levels, is_found in ((2, True), (MOST_NESTED + 2, False)):
        raw = whole(named("decimal:Decimal"))
        for _ in range(levels):
            raw = whole(wrapped(dtype("O1"), (1,), raw))
        assert ("decimal.Decimal" in list_names(raw)) is is_found


def test_no_file_makes_the_survey_raise() -> None:
    random = np.random.default_rng(0)
    for turn in range(600):
        raw = bytearray(pickle.dumps(MIXED, turn % 6))
        for place in random.integers(0, len(raw), 8):
            raw[place] = random.integers(0, 256)
        list_names(bytes(raw))


def test_other_refusals_stay_unchanged(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(whole(call(named("numpy:exp"), 1)))
    with pytest.raises(LoadRefused, match=r"calls numpy\.exp, which may be named but not called"):
        load_model(str(tmp_path / "model"), Format.PICKLE)
