"""Reading within budgets: every estimator loads in every compression, and files that become too large are refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from serving.domain.version import Format
from serving.host.loading import MIN_MAPPED_FILE_BYTES, load_model
from serving.host.restricted import Distrusted, load_restricted
from serving.host.restricted.reading import FREE_BYTES
from tests.hostile.apart import judged
from tests.hostile.opcodes import value, whole
from tests.unit.host.test_every_estimator import ESTIMATORS, LEFT_OUT, fit_estimator

COMPRESSIONS = ("zlib", "gzip", "bz2", "lzma", "xz", None)
MANY = np.random.default_rng(0).normal(size=(80, 4))
XZ = partial(lzma.compress, preset=0)
LABELS = np.arange(80) % 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "blob"


@pytest.mark.parametrize("name", sorted(ESTIMATORS.keys() - LEFT_OUT.keys()))
def test_every_estimator_loads(name: str, file: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # some are deprecated, and say so when they are made
        assert_loads(fit_estimator(name)[0], file)


def assert_loads(estimator: Any, file: Path) -> None:
    joblib.dump(estimator, file)
    assert type(load_restricted(str(file))) is type(estimator)
    file.write_bytes(pickle.dumps(estimator, 5))
    assert type(load_restricted(str(file))) is type(estimator)


def make_models() -> dict[str, Any]:
    categorical = np.column_stack([MANY[:, 0], LABELS, MANY[:, 1], LABELS % 2])
    return {
        "forest": RandomForestClassifier(5, random_state=0).fit(MANY, LABELS),
        "pipeline": make_pipeline(SimpleImputer(), FunctionTransformer(np.exp), StandardScaler()).fit(MANY),
        "categories": HistGradientBoostingClassifier(max_iter=3, categorical_features=[1, 3]).fit(categorical, LABELS),
    }


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_loads(compression: str | None, file: Path) -> None:
    for model in make_models().values():
        joblib.dump(model, file, compress=(compression, 3) if compression else 0)
        found = load_restricted(str(file))
        assert type(found) is type(model)
        if hasattr(model, "predict"):
            np.testing.assert_array_equal(found.predict(MANY), model.predict(MANY))


def test_a_memory_mapped_file_loads(file: Path) -> None:
    joblib.dump({"a": np.arange(4096.0), "b": np.array(["x", None], dtype=object), "c": np.zeros((3, 0))}, file)
    found = load_restricted(str(file), mmap_mode="r")
    assert isinstance(found["a"], np.memmap)
    assert found["a"].sum() == np.arange(4096.0).sum()
    assert found["b"].tolist() == ["x", None]


def test_a_large_model_is_memory_mapped_and_answers(file: Path) -> None:
    model = StandardScaler().fit(MANY)
    model.ballast_ = np.ones((MIN_MAPPED_FILE_BYTES >> 3) + 1)
    joblib.dump(model, file)
    found = load_model(str(file), Format.JOBLIB)
    rows = found.make_rows(2)
    np.testing.assert_array_equal(found.answer("transform", rows).tensors[0], model.transform(rows.matrix))


def find_refusal_in_little_memory(file: Path) -> str:
    """Return the refusal of a file by a process that has too little memory for the content of the file."""

    def judge(path: Path) -> tuple[str, str]:
        try:
            load_restricted(str(path))
        except Distrusted as error:
            return "refused", str(error)
        return "loaded", ""

    (verdict,) = judged([file], judge, megabytes=48)
    assert verdict.word == "refused"
    return verdict.said


@pytest.mark.parametrize("compress", [zlib.compress, gzip.compress, bz2.compress, XZ])
def test_a_compressed_file_of_many_parts_that_becomes_too_large_is_refused(
    compress: Callable[[bytes], bytes], file: Path
) -> None:
    file.write_bytes(compress(whole((value(bytes(1 << 20)) + b"0") * 80 + value(1))))
    assert file.stat().st_size < 300_000
    said = find_refusal_in_little_memory(file)
    assert f"larger than {FREE_BYTES >> 20} MB, all that its compressed size allows (candidate.max_expansion)" in said


def test_a_compressed_file_of_one_part_that_becomes_too_large_is_refused(file: Path) -> None:
    file.write_bytes(zlib.compress(whole(value(bytes(80 << 20)))))
    assert "candidate.max_expansion" in find_refusal_in_little_memory(file)
    assert len(load_restricted(str(file), max_expansion=2000)) == 80 << 20


def test_bytes_after_the_end_are_refused(file: Path) -> None:
    for compress in (bytes, zlib.compress, XZ):
        file.write_bytes(compress(whole(value(1)) + b"\0"))
        with pytest.raises(Distrusted, match="continues after the end"):
            load_restricted(str(file))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_damage(share: float, file: Path) -> None:
    joblib.dump(make_models()["forest"], file)
    raw = file.read_bytes()
    file.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises((EOFError, ValueError, pickle.UnpicklingError)), warnings.catch_warnings(action="ignore"):
        load_restricted(str(file))


def test_the_old_zip_format_is_refused(file: Path) -> None:
    file.write_bytes(b"ZF0x10" + b" " * 15 + zlib.compress(whole(value(1))))
    with pytest.raises(Distrusted, match=r"joblib 0\.9"), warnings.catch_warnings(action="ignore"):
        load_restricted(str(file))
