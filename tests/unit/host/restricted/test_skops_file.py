"""skops files: those of the libraries are read unchanged, and a forged one calls nothing while it is read."""

from __future__ import annotations

import itertools
import json
import operator
import pickle
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from scipy import sparse, stats
from sklearn.callback import ProgressBar
from sklearn.ensemble import VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, RandomizedSearchCV
from sklearn.preprocessing import StandardScaler

from serving.host.restricted import Distrusted, load_skops
from serving.host.restricted.fitting_only import StandIn
from serving.host.restricted.skops_nodes import MOST_NODES_DEEP
from tests.hostile.skops_files import (
    Node,
    archive,
    array,
    call,
    in_dict,
    in_list,
    in_tuple,
    node,
    noted,
    npy,
    npz,
    objects,
    plain,
    whole,
)
from tests.sound import Fitted, boosters, compositions, own_attributes

SCALER = "sklearn.preprocessing._data.StandardScaler"
# HashingVectorizer(input="file") and (input="filename") are refused in pickles, too
DELIBERATE = "would open files named by requests"


def read(raw: bytes, path: Path, trusted: tuple[str, ...] = ()) -> Any:
    path.write_bytes(raw)
    return load_skops(str(path), trusted)


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[bytes], str]:
    def why(raw: bytes) -> str:
        with pytest.raises(Distrusted) as caught:
            read(raw, tmp_path / "file.skops")
        return str(caught.value)

    return why


@pytest.fixture
def reread(tmp_path: Path) -> Callable[[Any], Any]:
    return lambda value: read(skops.io.dumps(value), tmp_path / "file.skops")


# --- sound models -----------------------------------------------------------------------------------------------------


def some_compositions() -> Iterator[Fitted]:
    return itertools.islice(compositions(), 0, None, 3)


@pytest.mark.parametrize("make", [some_compositions, boosters, own_attributes], ids=lambda make: make.__name__)
def test_sound_models_give_the_same_answers(make: Callable[[], Any], tmp_path: Path) -> None:
    assert_all_load(make(), tmp_path / "file.skops", least=1)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_every_sound_model_gives_the_same_answers(tmp_path: Path) -> None:
    from tests.sound import every_model

    assert_all_load(every_model(), tmp_path / "file.skops", least=5000)


def assert_all_load(models: Any, path: Path, least: int) -> None:
    dumped, refused, different = 0, [], []
    for fitted in models:
        try:
            raw = skops.io.dumps(fitted.estimator)
        except Exception:  # noqa: BLE001  (what skops does not write: Birch, lil matrices, keys that are tuples)
            continue
        dumped += 1
        try:
            found = read(raw, path)
        except Distrusted as error:
            refused.extend([] if DELIBERATE in str(error) else [(str(fitted), str(error))])
            continue
        if answers(found, fitted) != answers(pickle.loads(pickle.dumps(fitted.estimator)), fitted):
            different.append(str(fitted))
    print(f"dumped {dumped}, refused {len(refused)}, answered otherwise {len(different)}")
    assert (refused, different) == ([], [])
    assert dumped >= least


def answers(estimator: Any, fitted: Fitted) -> list[Any]:
    """Return the answers of an estimator, in a form that can be compared, or the error it raises."""
    found = []
    for method in ("predict", "predict_proba", "decision_function", "transform", "score_samples", "kneighbors"):
        np.random.seed(0)  # for estimators without a random state
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            try:
                answer = getattr(estimator, method)(fitted.rows)
            except Exception as error:  # noqa: BLE001  (not offered, or not for these rows)
                answer = type(error).__name__
        parts = answer if type(answer) in (tuple, list) else [answer]
        found.append([make_comparable(part) for part in parts])
    return found


def make_comparable(part: Any) -> Any:
    if sparse.issparse(part):
        return (part.shape, *map(make_comparable, sparse.find(part)))
    made = np.asarray(part)
    return made.dtype.str, made.shape, repr(made.tolist())


def test_other_objects_are_known_as_in_pickles(reread: Callable[[Any], Any]) -> None:
    imputer = reread(SimpleImputer(missing_values=pd.NA, strategy="most_frequent"))
    assert imputer.missing_values is pd.NA
    search = RandomizedSearchCV(LogisticRegression(), {"C": stats.uniform(1, 2)}, cv=GroupKFold(3))
    found = reread(search)
    assert isinstance(found.param_distributions["C"], StandIn)
    assert found.cv.n_splits == 3
    watched = reread(LogisticRegression().set_callbacks(ProgressBar()))
    assert isinstance(watched._skl_callbacks[0], StandIn)


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            1,
            -(1 << 80),
            1.5,
            float("inf"),
            "text",
            "\ud800",
            b"bytes",
            bytearray(b"more"),
            slice(1, None, 2),
        ),
        *([1, ["a"]], (1, (2.5,)), {1, 2}, frozenset([1]), range(1, 9, 2), np.float64(1.5), np.str_("a"), np.int8(3)),
        *(np.timedelta64(3, "D"), np.complex64(1j), np.dtype("f4"), np.dtype(object), np.dtype([("a", "i4")])),
        {"a": 1, 2: "b", 2.5: None, True: 3, False: 4, None: 5},
        {np.int64(5): 1, np.float32(1.5): 2, np.str_("b"): 3},
        OrderedDict([("b", 1), ("a", 2)]),
        defaultdict(list, a=[1]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_plain_values_are_read_as_they_were(reread: Callable[[Any], Any], value: Any) -> None:
    found = reread([value])[0]
    assert (type(found), found) == (type(value), value)
    if isinstance(value, dict):
        assert list(map(type, found)) == list(map(type, value))


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(1.5),
        np.array([], dtype="f4"),
        np.array(["a", "bc"]),
        np.array(["2026-01-01"], dtype="M8[D]"),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.arange(3, dtype=">i4"),
        np.array([None, "a", [1]], dtype=object),
        np.array([[None, "a"], [1, 2.5]], dtype=object),
        np.empty((0, 2), dtype=object),
    ],
    ids=lambda value: f"{value.dtype.str}{value.shape}",
)
def test_arrays_are_read_as_they_were(reread: Callable[[Any], Any], value: Any) -> None:
    found = reread([value])[0]
    assert (found.dtype.newbyteorder("="), found.shape) == (value.dtype.newbyteorder("="), value.shape)
    assert found.flags.f_contiguous == value.flags.f_contiguous
    assert found.tolist() == value.tolist()


@pytest.mark.parametrize("mask", [[True, False], False])
@pytest.mark.parametrize("kind", ["f8", object])
def test_masked_arrays_are_read_as_they_were(reread: Callable[[Any], Any], mask: Any, kind: Any) -> None:
    value = np.ma.MaskedArray(np.array([1.5, 2], dtype=kind), mask)
    found = reread([value])[0]
    assert (type(found), found.tolist(), found.dtype) == (type(value), value.tolist(), value.dtype)
    rows = np.ma.MaskedArray(np.asfortranarray([[1, 2], [3, 4]]), [[False, True], [False, False]])
    assert reread([rows])[0].tolist() == [[1, None], [3, 4]]


@pytest.mark.parametrize("layout", ["csr", "csc", "bsr", "dia", "coo"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_sparse_matrices_are_read_as_they_were(reread: Callable[[Any], Any], layout: str, kind: str) -> None:
    value = getattr(sparse, f"{layout}_{kind}")(np.triu(np.arange(9.0).reshape(3, 3)))
    found = reread([value])[0]
    assert type(found) is type(value)
    assert found.toarray().tolist() == value.toarray().tolist()
    assert (found @ np.ones(3)).tolist() == (value @ np.ones(3)).tolist()


@pytest.mark.parametrize("name", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_random_generators_keep_their_state(reread: Callable[[Any], Any], name: str) -> None:
    state, generator = np.random.RandomState(3), np.random.Generator(getattr(np.random, name)(3))
    found_state, found_generator = reread([state, generator])
    assert found_state.uniform() == state.uniform()
    assert found_generator.uniform() == generator.uniform()


def test_an_object_in_two_places_is_read_once(reread: Callable[[Any], Any]) -> None:
    shared = np.arange(3.0)
    first, second = reread([shared, shared])
    assert first is second


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_of_skops_is_read(tmp_path: Path, compression: int) -> None:
    raw = skops.io.dumps(StandardScaler().fit(np.eye(3)), compression=compression)
    assert read(raw, tmp_path / "file").mean_.tolist() == pytest.approx([1 / 3] * 3)


def test_functions_of_the_oldest_files_are_read(tmp_path: Path) -> None:
    old = node("FunctionNode", "builtins.function", content={"module_path": "numpy", "function": "log1p"})
    assert read(whole(in_list(old)), tmp_path / "file") == [np.log1p]


# --- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("joblib.memory.Memory", "lightgbm.basic.Booster", "xgboost.core.Booster", "numpy.ndarray", "numpy.float64"),
        *("builtins.str", "builtins.int", "builtins.object", "numpy.exp", "sklearn.pipeline.Pipeline"),
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
    ],
)
def test_a_name_that_may_be_mentioned_is_not_called(name: str, refusal: Callable[[bytes], str]) -> None:
    assert f"calls {name}, which may be named but not called" in refusal(noted(call(name, in_list(plain(1)))))


def test_a_refused_call_makes_no_directory(tmp_path: Path, refusal: Callable[[bytes], str]) -> None:
    refusal(noted(call("joblib.memory.Memory", plain(str(tmp_path / "made")))))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "calling",
    [
        call("sklearn.tree._tree.Tree", plain(4), array("a.npy"), plain(5_000_000)),
        node(
            "TreeNode",
            "sklearn.tree._tree.Tree",
            __reduce__={"args": in_tuple(plain(4), array("a.npy"), plain(5_000_000))},
            content=in_dict({}),
        ),
        node(
            "LossNode",
            "sklearn._loss._loss.CyPinballLoss",
            __reduce__={"args": in_tuple(plain("text"))},
            content=in_dict({}),
        ),
        call("builtins.frozenset", plain("text")),
        call("functools.partial", plain(1)),
    ],
    ids=["a tree called", "a tree", "a loss", "a set of a text", "a partial of a number"],
)
def test_calls_need_usual_arguments(calling: Node, refusal: Callable[[bytes], str]) -> None:
    assert "with arguments no model has" in refusal(noted(calling, a_npy=npy(np.array([2]))))


def test_a_loss_of_another_class_is_refused(refusal: Callable[[bytes], str]) -> None:
    other = node("LossNode", "joblib.memory.Memory", __reduce__={"args": in_tuple(plain("x"))}, content=in_dict({}))
    assert "calls joblib.memory.Memory" in refusal(noted(other))


def test_no_class_or_function_is_among_the_arguments(refusal: Callable[[bytes], str]) -> None:
    function = node("FunctionNode", "numpy.exp")
    bound = {"func": function, "args": in_tuple(), "kwds": in_dict({}), "namespace": plain(None)}
    assert "class or function as argument" in refusal(noted(node("PartialNode", "functools.partial", content=bound)))


def test_partials_bind_keywords_only(refusal: Callable[[bytes], str]) -> None:
    function = node("FunctionNode", "sklearn.utils.validation.check_array")
    bound = {"func": function, "args": in_tuple(plain(1)), "kwds": in_dict({}), "namespace": plain(None)}
    assert "binds arguments" in refusal(noted(node("PartialNode", "functools.partial", content=bound)))


@pytest.mark.parametrize("loader", ["MethodNode", "CachedNode", "QuantileForestNode", "Node", ""])
def test_nodes_that_no_model_needs_are_refused(loader: str, refusal: Callable[[bytes], str]) -> None:
    content = {"func": "fit", "obj": plain(1)}
    assert "a part that no model needs" in refusal(noted(node(loader, SCALER, content=content)))


def test_plain_values_are_no_containers(refusal: Callable[[bytes], str]) -> None:
    assert "a list where skops writes a plain value" in refusal(noted(plain([1])))
    parts = {"start": {"a": 1}, "stop": None, "step": None}
    assert "a dict where skops writes a plain value" in refusal(
        noted(node("SliceNode", "builtins.slice", content=parts))
    )


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_refusal_lists_all_unknown_names_with_the_setting(refusal: Callable[[bytes], str]) -> None:
    many = in_list(*(node("FunctionNode", f"os.f{number}") for number in range(7)))
    assert refusal(noted(many)) == (
        "the file names types that are not on the list; if you trust them: "
        'security.skops_trusted = ["os.f0", "os.f1", "os.f2", "os.f3", "os.f4", "os.f5", "os.f6"]'
    )


def test_trusted_types_are_used_in_every_way(tmp_path: Path, refusal: Callable[[bytes], str]) -> None:
    model = StandardScaler().fit(np.eye(3))
    model.note = [Fraction(1, 2), operator.itemgetter(1)]
    raw = skops.io.dumps(model)
    assert '"fractions.Fraction", "operator.itemgetter"' in refusal(raw)
    half, second = read(raw, tmp_path / "file", ("fractions.Fraction", "operator.itemgetter")).note
    assert (half, second("ab")) == (Fraction(1, 2), "b")


def test_trusting_one_type_allows_no_other_call(tmp_path: Path) -> None:
    raw = noted(in_list(call("fractions.Fraction", plain("1/2")), call("joblib.memory.Memory", plain("x"))))
    with pytest.raises(Distrusted, match=r"calls joblib\.memory\.Memory"):
        read(raw, tmp_path / "file", ("fractions.Fraction",))


# --- states -----------------------------------------------------------------------------------------------------------


def test_a_bunch_with_a_dunder_item_is_refused(tmp_path: Path, refusal: Callable[[bytes], str]) -> None:
    bunch = in_dict({"__array_interface__": plain(None)}, "sklearn.utils._bunch.Bunch")
    assert "gives a Bunch an item that begins with '__'" in refusal(noted(bunch))
    sound = VotingClassifier([("a", LogisticRegression())]).fit(np.eye(3), [0, 1, 1])
    assert read(skops.io.dumps(sound), tmp_path / "file").named_estimators_.a.classes_.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["transform", "__class__"])
def test_no_attribute_replaces_a_method(name: str, refusal: Callable[[bytes], str]) -> None:
    assert "the file sets an attribute" in refusal(whole(node("ObjectNode", SCALER, content=in_dict({name: plain(1)}))))


def test_a_random_state_is_numbers(refusal: Callable[[bytes], str]) -> None:
    forged = node(
        "RandomStateNode", "numpy.random.mtrand.RandomState", content=in_dict({"a": node("ObjectNode", SCALER)})
    )
    assert "random numbers a state of other things" in refusal(noted(forged))


def test_a_generator_is_made_of_a_known_one(tmp_path: Path) -> None:
    content = {"bit_generator": in_dict({"bit_generator": plain("seed")}), "seed_seq": in_dict({})}
    with pytest.raises(ValueError, match="seed is not a known BitGenerator"):
        read(
            noted(node("RandomGeneratorNode", "numpy.random._generator.Generator", content=content)), tmp_path / "file"
        )


def test_a_dict_has_a_type_for_each_key(refusal: Callable[[bytes], str]) -> None:
    forged = in_dict({"a": plain(1), "b": plain(2)})
    forged["key_types"]["content"].pop()
    assert "lacks the types of some keys" in refusal(noted(forged))


def test_keys_are_made_of_known_types(refusal: Callable[[bytes], str]) -> None:
    forged = in_dict({"a": plain(1)})
    forged["key_types"]["content"] = [node("TypeNode", "joblib.memory.Memory")]
    assert "calls joblib.memory.Memory" in refusal(noted(forged))


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_an_array_of_pickles_is_refused(refusal: Callable[[bytes], str]) -> None:
    assert "an array whose parts do not fit together" in refusal(noted(array("a.npy"), a_npy=npy(np.array([None]))))


def test_an_array_has_as_many_bytes_as_it_says(tmp_path: Path) -> None:
    sound = npy(np.arange(4.0))
    for raw in (sound[:-8], sound.replace(b"(4,), ", b"(99999,), ")[: len(sound)], sound[:40]):
        with pytest.raises((EOFError, ValueError)):
            read(noted(array("a.npy"), a_npy=raw), tmp_path / "file")


def test_bytes_after_an_array_are_ignored(tmp_path: Path) -> None:
    raw = npy(np.arange(4.0)) + pickle.dumps(Fraction(1, 2))
    assert read(noted(array("a.npy"), a_npy=raw), tmp_path / "file").note.tolist() == [0, 1, 2, 3]


def test_a_scalar_is_of_the_type_it_is_named(refusal: Callable[[bytes], str]) -> None:
    for name, content in (("float32", np.array(1.5)), ("float64", np.ones(3)), ("load", np.array(1))):
        forged = noted(array("a.npy", f"numpy.{name}"), a_npy=npy(content))
        assert f"numpy.{name} that is another array" in refusal(forged)


def test_an_object_array_has_as_many_objects_as_its_shape(refusal: Callable[[bytes], str]) -> None:
    one, three = in_list(plain(1)), in_list(plain(1), plain(2), plain(3))
    for shape, items in (((1 << 40,), [plain(1)]), ((2, 2), [one, one]), ((2, 2), [one, three])):
        sizes = in_tuple(*map(plain, shape))
        assert "an array whose parts do not fit together" in refusal(noted(objects(sizes, *items)))
    assert "a shape in another form" in refusal(noted(objects(in_tuple(plain(-1)))))


def test_a_mask_has_the_shape_of_its_array(refusal: Callable[[bytes], str]) -> None:
    def masked(data: Node) -> Node:
        return node("MaskedArrayNode", "numpy.ma.MaskedArray", content={"data": data, "mask": array("m.npy")})

    members = {"a_npy": npy(np.arange(3.0)), "m_npy": npy(np.array([True]))}
    assert "a mask of another shape" in refusal(noted(masked(array("a.npy")), **members))
    huge = masked(objects(in_tuple(plain(1 << 50))))
    assert "becomes larger than" in refusal(noted(huge, m_npy=npy(np.array(True))))


def test_a_sparse_matrix_is_of_a_known_layout(refusal: Callable[[bytes], str]) -> None:
    for name in ("scipy.sparse._dok.dok_matrix", "joblib.memory.Memory"):
        forged = node("SparseMatrixNode", name, type="scipy", file="a.npz")
        assert "sparse matrix of another layout" in refusal(noted(forged, a_npz=npz(shape=(1, 1))))


def test_the_indices_of_a_sparse_matrix_are_checked(refusal: Callable[[bytes], str]) -> None:
    parts = {"indices": np.array([1 << 20]), "indptr": np.array([0, 1]), "data": np.ones(1), "shape": np.array([1, 2])}
    forged = node("SparseMatrixNode", "scipy.sparse._csr.csr_matrix", type="scipy", file="a.npz")
    assert "that is not sound" in refusal(noted(forged, a_npz=npz(**parts)))


# --- nesting and form -------------------------------------------------------------------------------------------------


def test_json_does_not_nest_without_end(refusal: Callable[[bytes], str]) -> None:
    deep = b"[" * 200_000
    assert "JSON without end" in refusal(archive({"schema.json": deep}))
    assert "JSON without end" in refusal(noted(node("JsonNode", "builtins.str", content=deep.decode())))


def test_objects_do_not_nest_without_end(tmp_path: Path, refusal: Callable[[bytes], str]) -> None:
    deep = plain(1)
    for _ in range(MOST_NODES_DEEP - 1):
        deep = in_list(deep)
    assert read(whole(deep), tmp_path / "file")
    assert f"nests objects more than {MOST_NODES_DEEP} times" in refusal(whole(in_list(deep)))


@pytest.mark.parametrize("value", [None, 1, []])
@pytest.mark.parametrize("part", ["__loader__", "__class__", "__module__", "content", "key_types"])
def test_parts_of_another_form_are_refused(part: str, value: Any, refusal: Callable[[bytes], str]) -> None:
    said = refusal(whole({**in_dict({"a": plain(1)}, SCALER), part: value}))
    assert f"schema.json has '{part}' in another form than skops writes it" in said


def test_json_that_is_no_json_is_damage(tmp_path: Path) -> None:
    with pytest.raises(json.JSONDecodeError):
        read(archive({"schema.json": b"{"}), tmp_path / "file")
