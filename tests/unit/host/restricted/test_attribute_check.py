"""The check of attributes: sound models pass with every option, gadgets of listed classes are refused."""

from __future__ import annotations

import functools
import pickle
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from serving.domain.version import Format
from serving.host.loading import Trust, load_model
from serving.host.model import LoadRefused
from serving.host.restricted import Distrusted, check_loaded, load_restricted
from serving.host.restricted.allow_list import read_allow_list
from serving.host.restricted.attribute_schema import Kinds
from tests.hostile.gadgets import gadgets, runs_code, stacked, tampered
from tests.sound import Fitted, boosters, compositions, own_attributes

X = np.random.default_rng(0).normal(size=(30, 3))
Y = np.arange(30) % 2
MODEL = "sklearn.ensemble._stacking.StackingClassifier"


def reread(model: Any, path: Path, write: Callable[[Any, Path], None]) -> Any:
    write(model, path)
    return load_restricted(str(path))


def write_with_joblib(model: Any, path: Path) -> None:
    joblib.dump(model, path)


def write_with_pickle(model: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(model, protocol=2))


@pytest.mark.parametrize("make", [compositions, boosters, own_attributes], ids=lambda make: make.__name__)
def test_common_models_pass(make: Callable[[], Any], tmp_path: Path) -> None:
    refused = []
    tried = 0
    for fitted in make():
        tried += 1
        for write in (write_with_joblib, write_with_pickle):
            try:
                reread(fitted.estimator, tmp_path / "file", write)
            except Distrusted as error:
                refused.append((str(fitted), str(error)))
    assert refused == []
    assert tried > 0


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_every_estimator_with_every_option_passes(tmp_path: Path) -> None:
    from tests.sound import every_model

    verdicts = [(str(each), find_refusal(each, tmp_path / "file")) for each in every_model()]
    refused = [(label, why) for label, why in verdicts if why is not None]
    print(f"tried {len(verdicts)}, refused {len(refused)}")
    # one of two kinds of vectorizers reads files that requests would name
    assert [label for label, why in refused if "would open files named by requests" not in why] == []
    assert len(verdicts) > 5000


def find_refusal(fitted: Fitted, path: Path) -> str | None:
    try:
        reread(fitted.estimator, path, write_with_joblib)
    except Distrusted as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", sorted(gadgets()))
def test_a_gadget_of_listed_classes_is_refused(name: str, tmp_path: Path) -> None:
    model = gadgets()[name]()
    with pytest.raises(Distrusted) as caught:
        reread(model, tmp_path / "file", write_with_joblib)
    said = str(caught.value)
    assert said.startswith("the file ")
    assert re.search(r"security\.|write it anew", said)
    assert "\n" not in said


@pytest.mark.parametrize("name", sorted(gadgets()))
def test_a_gadget_deep_inside_a_model_is_refused(name: str, tmp_path: Path) -> None:
    steps = Pipeline([("a", "passthrough"), ("b", stacked())])
    steps.steps[1][1].estimators_[0] = gadgets()[name]()
    with pytest.raises(Distrusted):
        reread(steps, tmp_path / "file", write_with_joblib)


def test_there_are_many_gadgets() -> None:
    assert len(gadgets()) >= 100


def test_a_chain_of_gadgets_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    model = runs_code(f"open({str(marker)!r}, 'w').close()")
    with pytest.raises(Distrusted, match=r"security\.pickle_trusted"):
        reread(model, tmp_path / "file", write_with_joblib)
    assert not marker.exists()


def test_the_chain_of_gadgets_runs_without_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of attributes the chain runs its code: the test above refuses a real attack."""
    marker = tmp_path / "marker"
    joblib.dump(runs_code(f"open({str(marker)!r}, 'w').close()"), tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    model = joblib.load(tmp_path / "file")
    with pytest.raises(Exception):  # noqa: B017, PT011  (it has run by then)
        model.predict([[1.0]])
    assert marker.exists()


# --- what is said, and what would allow it ----------------------------------------------------------------------------


def test_a_refusal_names_value_attribute_and_setting() -> None:
    model = tampered(stacked(), stack_method_=["fit", "predict"])
    with pytest.raises(Distrusted) as caught:
        check_loaded(model)
    assert str(caught.value) == (
        "the file has the text 'fit' in StackingClassifier.stack_method_, where known models have 'auto', "
        "'decision_function', 'predict' and 1 more; if you vouch for it: "
        f'security.pickle_trusted = ["{MODEL}"]'
    )


def test_a_trusted_class_may_hold_any_sound_object() -> None:
    model = tampered(stacked(), stack_method_=["fit", "predict"])
    check_loaded(model, [MODEL])
    model.final_estimator_ = tampered(LogisticRegression().fit(X, Y), solver="fit")
    with pytest.raises(Distrusted, match=r"LogisticRegression\.solver"):
        check_loaded(model, [MODEL])


def test_objects_made_by_trusted_code_pass_only_in_trusted_objects() -> None:
    """No file may name a class that is neither listed nor trusted, so its objects were made by trusted code."""
    made = types.SimpleNamespace(rows=pd.Series([1.0]))
    model = make_pipeline(tampered(stacked(), note=made), LogisticRegression().fit(X, Y))
    with pytest.raises(Distrusted, match=r"types\.SimpleNamespace in StackingClassifier\.note"):
        check_loaded(model)
    check_loaded(model, [MODEL])
    made.model = tampered(LogisticRegression().fit(X, Y), solver="fit")
    with pytest.raises(Distrusted, match=r"LogisticRegression\.solver"):
        check_loaded(model, [MODEL])
    model = make_pipeline(stacked(), tampered(LogisticRegression().fit(X, Y), note=types.SimpleNamespace()))
    with pytest.raises(Distrusted, match=r"types\.SimpleNamespace in LogisticRegression\.note"):
        check_loaded(model, [MODEL])


def test_any_attribute_may_hold_a_trusted_function() -> None:
    model = FunctionTransformer(functools.reduce)
    with pytest.raises(Distrusted, match=r"FunctionTransformer\.func"):
        check_loaded(model)
    check_loaded(model, ["functools.reduce"])


def test_skops_files_get_the_same_check(tmp_path: Path) -> None:
    skops.io.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y), tmp_path / "sound.skops")
    load_model(str(tmp_path / "sound.skops"), Format.SKOPS)
    skops.io.dump(tampered(stacked(), stack_method_=["fit", "predict"]), tmp_path / "file.skops")
    with pytest.raises(LoadRefused, match=r"stack_method_.*security\.skops_trusted = \[.*StackingClassifier"):
        load_model(str(tmp_path / "file.skops"), Format.SKOPS)
    load_model(str(tmp_path / "file.skops"), Format.SKOPS, Trust(skops_trusted=(MODEL,)))


# --- what is known of attributes --------------------------------------------------------------------------------------


def test_memory_is_none_after_loading(tmp_path: Path) -> None:
    steps = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), LogisticRegression())).fit(X, Y)
    steps.steps[1][1].memory = "here"
    steps.memory = joblib.Memory(str(tmp_path / "memory"), verbose=0)
    found = reread(steps, tmp_path / "file", write_with_joblib)
    assert found.memory is None
    assert found.steps[1][1].memory is None


def test_attributes_that_no_code_reads_may_hold_any_plain_value() -> None:
    model = tampered(
        LogisticRegression().fit(X, Y), version="1.2", notes={"by": ["me", None, 1.5]}, feature_names=["a"]
    )
    check_loaded(model)


def test_unlisted_attributes_that_the_class_reads_hold_only_numbers() -> None:
    with pytest.raises(Distrusted, match=r"the text 'fit' in LogisticRegression\.intercept_"):
        check_loaded(tampered(LogisticRegression().fit(X, Y), intercept_="fit"))


def test_objects_in_a_cycle_are_checked_once() -> None:
    model = LogisticRegression().fit(X, Y)
    model.notes = [model]
    model.notes.append(model.notes)
    check_loaded(model)


def test_every_class_that_files_may_make_has_a_schema() -> None:
    """Every class whose objects a file may make is in the schema, even if its attributes are only numbers."""
    known = read_allow_list()
    made = {".".join(name) for name in known.created}
    without = {"joblib.numpy_pickle.NumpyArrayWrapper"}  # gone when its array is read
    assert made - without <= known.schema.classes.keys()


@pytest.mark.parametrize("word", ["numbers", "'", "x:y.z", "", "/"])
def test_a_word_that_is_no_kind_is_an_error(word: str) -> None:
    with pytest.raises(ValueError, match="not a kind"):
        Kinds.parse([word])


def test_kinds_take_texts_by_word_and_by_pattern() -> None:
    kinds = Kinds.parse(["'mean'", "/[0-9]+/", "array"])
    assert [kinds.allows_text(text) for text in ("mean", "12", "12x", "fit")] == [True, True, False, False]
