"""The rules of the restricted unpickler, one by one, in pickles written by hand."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from serving.host.restricted import Distrusted
from serving.host.restricted.allow_list import AllowList, find_current_name, read_allow_list
from serving.host.restricted.fitting_only import StandIn
from serving.host.restricted.nesting import MOST_LEVELS
from serving.host.restricted.reading import BudgetedFile
from serving.host.restricted.unpickler import MOST_NESTED, RestrictedUnpickler
from tests.hostile.opcodes import (
    Fragment,
    again,
    array,
    built,
    call,
    dtype,
    instance,
    named,
    noted,
    value,
    whole,
    wrapped,
)

SCALER = named("sklearn.preprocessing._data:StandardScaler")
SEEDS = named("numpy.random.bit_generator:SeedSequence")
RANDOM_STATE = named("numpy.random._pickle:__randomstate_ctor")
RECONSTRUCT = named("numpy._core.multiarray:_reconstruct")


def read(raw: bytes, names: AllowList | None = None) -> Any:
    source = BudgetedFile(io.BytesIO(raw), len(raw), is_compressed=False)
    with warnings.catch_warnings(action="ignore"):  # estimators made here do not say which version wrote them
        return RestrictedUnpickler("", source, names or read_allow_list()).load()


def refusal(fragment: bytes, protocol: int = 4) -> str:
    raw = whole(fragment, protocol)
    with pytest.raises(Distrusted) as caught:
        read(raw)
    return str(caught.value)


# --- 1. globals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sklearn.pipeline:make_pipeline", "numpy:load", "osmosis:system", ":"])
def test_a_global_that_is_not_listed_is_refused_and_named(name: str) -> None:
    full = name.replace(":", ".")
    assert refusal(named(name)) == (
        f'the file names {full}, which is not on the list; if you trust it: security.pickle_trusted = ["{full}"]'
    )


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "importlib.util:find_spec"])
def test_refusal_marks_dangerous_globals(name: str) -> None:
    full = name.replace(":", ".")
    told = refusal(named(name))
    assert f"the file names {full}, which no model needs and an attack would: check where it came from" in told
    assert f'security.pickle_trusted = ["{full}"]' in told


def test_a_name_with_a_dot_is_refused_even_if_trusted() -> None:
    assert "inside of sklearn.pipeline" in refusal(named("sklearn.pipeline:Pipeline.fit"))
    with pytest.raises(Distrusted, match="no model does"):
        read(whole(named("os:path.join")), read_allow_list().with_trusted(("os.path.join",)))


@pytest.mark.parametrize("name", ["_scoring_monitor:ScoringMonitor", "_transport:ListenerHandle", "_progressbar:Other"])
def test_callbacks_of_a_fit_are_never_made(name: str) -> None:
    """The state of a callback opens a socket, or holds the address and the key of one."""
    watcher = built(instance(named(f"sklearn.callback.{name}")), {"address": "/tmp/x", "authkey": b"key"})
    assert isinstance(read(whole(watcher)), StandIn)
    assert isinstance(read(whole(instance(named(f"sklearn.callback.{name}"), "/tmp/x", b"key"))), StandIn)
    assert "calls something that is no listed function" in refusal(call(named(f"sklearn.callback.{name}"), 1))


def test_a_trusted_name_may_be_used_in_every_way() -> None:
    names = read_allow_list().with_trusted(("fractions.Fraction", "types.SimpleNamespace"))
    assert read(whole(call(named("fractions:Fraction"), 1, 2)), names) == 0.5
    made = instance(named("types:SimpleNamespace"))
    assert read(whole(built(made, {"a": 1})), names).a == 1
    assert "fractions.Fraction" in refusal(named("fractions:Fraction"))


def test_a_trusted_class_may_have_an_attribute_with_the_name_of_a_method() -> None:
    names = read_allow_list().with_trusted(("fractions.Fraction", "collections.Counter", "decimal.Context"))
    counter = read(whole(built(instance(named("collections:Counter")), {"total": 1})), names)
    assert counter.total == 1


@pytest.mark.parametrize(
    ("asked", "protocol", "found"),
    [
        (("numpy.core.multiarray", "scalar"), 4, ("numpy._core.multiarray", "scalar")),
        (("numpy.core.numeric", "_frombuffer"), 5, ("numpy._core.numeric", "_frombuffer")),
        (("__builtin__", "eval"), 2, ("builtins", "eval")),
        (("__builtin__", "eval"), 3, ("__builtin__", "eval")),
        (("__builtin__", "xrange"), 2, ("builtins", "range")),
        (("numpy", "memmap"), 4, ("numpy", "ndarray")),
    ],
)
def test_names_of_older_files_become_current_names(asked: Any, protocol: int, found: Any) -> None:
    assert find_current_name(*asked, protocol) == found


def test_a_file_of_numpy_1_loads() -> None:
    raw = pickle.dumps(np.arange(3.0), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert read(raw).tolist() == [0, 1, 2]


def test_a_memory_mapped_array_class_becomes_the_array_class() -> None:
    assert read(whole(named("numpy:memmap"))) is np.ndarray


# --- 2. calls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["numpy:exp", "sklearn.pipeline:Pipeline", "numpy:ndarray", "builtins:int"])
def test_a_name_that_may_be_mentioned_may_not_be_called(name: str) -> None:
    assert f"calls {name.replace(':', '.')}, which may be named but not called" in refusal(call(named(name), 1))


def test_an_object_of_the_file_is_never_called() -> None:
    assert "no listed function" in refusal(call(instance(SCALER), 1))
    assert "no listed function" in refusal(named("builtins:slice") + value([1]) + b"R")


@pytest.mark.parametrize(
    "arguments",
    [
        (named("numpy:exp"),),
        ([named("numpy:exp")],),
        ({"a": (named("numpy:exp"),)},),
        ("MT19937", named("sklearn.pipeline:Pipeline")),
        (instance(named("sklearn.gaussian_process.kernels:RBF")),),
    ],
)
def test_no_function_is_among_the_arguments(arguments: tuple[Any, ...]) -> None:
    message = refusal(call(named("numpy.random._pickle:__randomstate_ctor"), *arguments))
    assert "with a class or function as argument" in message


def test_a_list_that_contains_itself_is_visited_once() -> None:
    looped = noted(Fragment(b"]"), 1) + again(1) + b"a"
    assert "calls builtins.slice with arguments no model has" in refusal(
        call(named("builtins:slice"), Fragment(looped))
    )


@pytest.mark.parametrize(
    "fragment",
    [
        call(named("numpy:dtype"), "f8"),
        call(named("numpy:dtype"), "f8", False, False),
        call(named("numpy:dtype"), "f8,O", False, True),
        call(named("numpy:dtype")),
        call(RECONSTRUCT, named("numpy:ndarray"), (9,), b"b"),
        call(RECONSTRUCT, named("numpy:ndarray"), (0,), "O"),
        call(named("numpy._core.multiarray:scalar"), dtype("V99999999")),
        call(named("numpy._core.multiarray:scalar"), dtype("f8"), b"1234567"),
        call(named("numpy._core.multiarray:scalar"), dtype("O"), [1]),
        call(named("numpy._core.numeric:_frombuffer"), array(dtype("O"), (1,), [1]), dtype("u8"), (1,), "C"),
        call(named("numpy._core.numeric:_frombuffer"), b"12345678", dtype("f8"), (1 << 60,), "C"),
        call(named("builtins:bytearray"), 1 << 40),
        call(named("builtins:bytes"), 1 << 40),
        call(named("_codecs:encode"), "a", "punycode"),
        call(named("functools:partial"), named("sklearn.utils.validation:check_array"), 1),
        call(named("builtins:set"), call(named("builtins:range"), 1 << 50)),
        call(named("builtins:frozenset"), "text"),
        call(named("builtins:range"), 1.5),
        call(named("collections:OrderedDict"), [(1, 2, 3)]),
        call(named("collections:defaultdict"), 1),
        call(RANDOM_STATE, instance(SCALER)),
        call(named("numpy.random._pickle:__bit_generator_ctor"), 5),
        call(named("numpy.random.bit_generator:__pyx_unpickle_SeedSequence"), SEEDS, 65708578, (1,)),
        call(named("copyreg:_reconstructor"), named("scipy.sparse._dok:dok_array"), named("builtins:dict"), (1, 2)),
        call(named("sklearn._loss._loss:CyHuberLoss"), "1.0"),
        call(named("sklearn.linear_model._sgd_fast:Hinge"), [1.0]),
    ],
)
def test_arguments_that_no_model_has_are_refused(fragment: bytes) -> None:
    assert "with arguments no model has" in refusal(fragment)


def test_a_partial_binds_keywords_to_the_function_it_was_made_with() -> None:
    made = call(named("functools:partial"), named("sklearn.utils.validation:check_array"))
    check = named("sklearn.utils.validation:check_array")
    assert read(whole(built(made, (check, (), {"dtype": None}, None)))).keywords == {"dtype": None}
    for state in [(named("numpy:exp"), (), {}, None), (check, (1,), {}, None), (check, (), {}, {"a": 1}), (check, ())]:
        assert "binds arguments" in refusal(built(made, state))


# --- 3. instances -----------------------------------------------------------------------------------------------------


def test_only_listed_classes_are_instantiated_and_without_arguments() -> None:
    assert "makes an object of numpy.ndarray" in refusal(instance(named("numpy:ndarray"), (9,)))
    assert "with arguments" in refusal(instance(SCALER, 1))
    assert "no listed class" in refusal(instance(instance(SCALER)))
    assert type(read(whole(instance(SCALER)))).__name__ == "StandardScaler"


def test_a_named_tuple_has_its_fields() -> None:
    triplet = read(whole(instance(named("sklearn.impute._iterative:_ImputerTriplet"), 1, [2], 3)))
    assert (triplet.feat_idx, triplet.neighbor_feat_idx, triplet.estimator) == (1, [2], 3)


@pytest.mark.parametrize(
    ("opcode", "fragment"),
    [
        ("INST", b"(icollections\nOrderedDict\n"),
        ("OBJ", b"(" + SCALER + b"o"),
        ("NEWOBJ_EX", SCALER + b")}\x92"),
        ("EXT1", b"\x82\x01"),
        ("EXT2", b"\x83\x01\x00"),
        ("EXT4", b"\x84\x01\x00\x00\x00"),
        ("PERSID", b"Pa\n"),
        ("BINPERSID", value("a") + b"Q"),
        ("NEXT_BUFFER", b"\x97"),
        ("READONLY_BUFFER", value(b"a") + b"\x98"),
    ],
)
def test_opcodes_that_no_model_needs_are_refused_by_name(opcode: str, fragment: bytes) -> None:
    assert opcode in [one.name for one, _, _ in pickletools.genops(whole(fragment, 5))]
    assert refusal(fragment, 5) == (
        f'the file uses the opcode {opcode}, which no model needs; security.trust = "any" would load it, sandboxed'
    )


# --- 4. state ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sklearn.pipeline:Pipeline", "numpy:exp", "builtins:dict", "numpy:mean"])
def test_classes_and_functions_get_no_state(name: str) -> None:
    assert "state of a class, function or module" in refusal(built(named(name), {"a": 1}))


@pytest.mark.parametrize(
    "state", [{"__class__": 1}, {"__setstate__": 1}, (None, {"__doc__": 1}), ({"__dict__": 1}, {})]
)
def test_no_attribute_has_a_dunder_name(state: Any) -> None:
    target = SCALER if isinstance(state, dict) else named("sklearn._loss.link:LogLink")
    assert "begins with '__'" in refusal(built(instance(target), state))


def test_no_attribute_replaces_a_method() -> None:
    assert "the method StandardScaler.transform" in refusal(built(instance(SCALER), {"transform": 1}))
    assert read(whole(built(instance(SCALER), {"mean_": 1}))).mean_ == 1


@pytest.mark.parametrize("name", ["collections:OrderedDict", "collections:defaultdict"])
def test_a_dict_gets_no_attributes(name: str) -> None:
    assert "sets attributes of a dict" in refusal(built(call(named(name)), {"note": 1}))


def test_the_state_of_an_object_is_set_once() -> None:
    """scikit-learn's Tree copies a longer second state over the end of the first one's memory."""
    twice = noted(instance(SCALER), 1) + value({"a": 1}) + b"b0" + again(1) + value({"a": 2}) + b"b"
    assert "state of one StandardScaler twice" in refusal(twice)


@pytest.mark.parametrize("make", ["sklearn.metrics._dist_metrics:newObj", "sklearn.neighbors._kd_tree:newObj"])
def test_an_object_made_without_content_needs_its_state(make: str) -> None:
    """Compiled code would read content that only the state brings."""
    kinds = {"_dist_metrics": "MahalanobisDistance64", "_kd_tree": "KDTree"}
    module = make.partition(":")[0]
    kind = named(f"{module}:{kinds[module.rpartition('.')[2]]}")
    assert "without its state" in refusal(call(named(make), kind))
    assert "without its state" in refusal(call(RECONSTRUCT, named("numpy:ndarray"), (0,), b"b"))


def test_random_numbers_have_a_state_of_numbers() -> None:
    assert "a state of other things" in refusal(built(call(RANDOM_STATE), {"state": instance(SCALER)}))
    objects = array(dtype("O"), (1,), [1])
    assert "a state of other things" in refusal(built(call(RANDOM_STATE), {"state": objects}))


def test_objects_that_only_fitting_needs_are_never_made() -> None:
    """The state of a distribution holds Python code, which SciPy runs when it is read back."""
    kind = named("scipy.stats._continuous_distns:norm_gen")
    assert isinstance(read(pickle.dumps(stats.norm())), StandIn)
    for code in ("raise SystemExit", f"{stats.norm._parse_arg_template}\nraise SystemExit", 1):
        assert "code that SciPy does not write" in refusal(built(instance(kind), {"_parse_arg_template": code}))
    method = call(named("builtins:getattr"), instance(kind), "_ppf_single")
    assert isinstance(read(whole(built(instance(named("numpy:vectorize")), {"pyfunc": method}))), StandIn)


def test_only_a_stand_in_is_asked_for_a_method() -> None:
    assert "names builtins.getattr, which no model needs" in refusal(call(named("builtins:getattr"), "text", "join"))
    assert "no listed class" in refusal(instance(named("builtins:getattr")))
    kind = named("scipy.stats._continuous_distns:norm_gen")
    assert "calls something that is no listed function" in refusal(call(kind, 1))
    assert "makes an object of something" in refusal(instance(kind, 1))
    assert "names scipy.stats._continuous_distns.norm," in refusal(named("scipy.stats._continuous_distns:norm"))


def test_the_depth_of_tuples_and_arrays_is_limited() -> None:
    """C code hashes tuples and frees arrays by recursion, and overflows its stack."""
    for count, is_deep in ((MOST_LEVELS - 2, False), (100_000, True)):
        for key in (b"})" + b"\x85" * count + b"K\x01s.", b")" + b"\x85" * count + b"."):
            raw = b"\x80\x04" + key
            if is_deep:
                with pytest.raises(Distrusted, match="nests tuples or arrays"):
                    read(raw)
            else:
                read(raw)


def test_arrays_of_objects_nest_only_so_deep() -> None:
    made: Any = 1
    for _ in range(MOST_LEVELS + 1):
        made = array(dtype("O"), (1,), [made])
    assert "nests tuples or arrays" in refusal(made)


def test_structures_hold_no_structures_and_arrays_few_dimensions() -> None:
    inner = built(
        call(named("numpy:dtype"), "V8", False, True), (3, "|", None, ("a",), {"a": (dtype("f8"), 0)}, 8, 1, 16)
    )
    outer = (3, "|", None, ("b",), {"b": (inner, 0)}, 8, 1, 16)
    assert "that NumPy would not make" in refusal(built(call(named("numpy:dtype"), "V8", False, True), outer))
    assert refusal(array(dtype("f8"), (1,) * 65, bytes(8)))


def test_an_array_gets_its_content_once_and_at_once() -> None:
    made = array(dtype("f8"), (1,), bytes(8))
    other = noted(made, 1) + b"0" + array(dtype("f8"), (1,), bytes(8), again(1))
    assert "twice" in refusal(other)
    view = call(named("numpy._core.numeric:_frombuffer"), bytes(8), dtype("f8"), (1,), "C")
    assert "another content" in refusal(array(dtype("f8"), (1,), bytes(8), view))


def test_a_state_does_not_change_the_size_of_a_dtype() -> None:
    """An array that has the dtype would be read beyond its end."""
    larger = (3, "|", None, ("a",), {"a": (dtype("f8"), 0)}, 16, 1, 16)
    assert "changes the size of a dtype" in refusal(built(call(named("numpy:dtype"), "V8", False, True), larger))


@pytest.mark.parametrize(
    "state",
    [
        (3, "|", None, -1, -1, 0),
        (2, "|", None, {}, -1, -1),
        (1, "|", None, None, -1, -1),
        (3, "|", None, None, None, -1, -1),
        (4, "|", None, None, None, -1, -1, 0),
        (3, "|", None, None, None, -1, -1, 0, None),
        ("3", "|", None, None, None, -1, -1, 0),
        (),
        [3],
    ],
)
def test_a_state_of_a_dtype_has_the_parts_of_its_version(state: Any) -> None:
    """NumPy follows a pointer that it never set in some of these, and the host would end."""
    assert "describes a dtype as NumPy would not" in refusal(built(dtype("i1"), state))


@pytest.mark.parametrize("kind", ["M8", "m8"])
def test_a_state_of_a_time_has_its_unit(kind: str) -> None:
    state = (3, "<", None, None, None, -1, -1, 0)
    assert "describes a dtype as NumPy would not" in refusal(built(dtype(kind), state))


def test_a_forged_dtype_never_reaches_an_array_that_has_it() -> None:
    """Otherwise NumPy would free the bytes of the array as pointers."""
    forged = (3, "|", None, ("a",), {"a": (dtype("O"), 0)}, 8, 1, 27)
    held = array(noted(dtype("V8"), 1), (1,), b"A" * 8) + b"0" + built(again(1), forged)
    assert "dtype that NumPy would not make" in refusal(held)


@pytest.mark.parametrize(
    "made",
    [
        np.dtype([("a", "f8"), ("b", "i4", (2, 3))]),
        np.dtype([("a", "f8"), ("b", "i1")], align=True),
        np.dtype("M8[D]"),
        np.dtype("S0"),
        np.dtype(">f4"),
        np.dtype(("f8", (2, 2))),
    ],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_dtypes_of_numpys_own_make_load(made: Any, protocol: int) -> None:
    assert read(pickle.dumps(made, protocol)) == made


# --- 5. containers ----------------------------------------------------------------------------------------------------


def test_items_go_into_lists_dicts_and_sets_only() -> None:
    scaler, item = instance(SCALER), value(1)
    for fragment in (
        item + b"a",
        b"(" + item + b"e",
        item + item + b"s",
        b"(" + item + item + b"u",
        b"(" + item + b"\x90",
    ):
        assert "adds items to an object of StandardScaler" in refusal(scaler + fragment)


def test_a_bunch_with_a_dunder_item_is_refused() -> None:
    bunch, pair = instance(named("sklearn.utils._bunch:Bunch")), value("__array_interface__") + value({})
    assert "begins with '__'" in refusal(bunch + pair + b"s")
    assert "begins with '__'" in refusal(bunch + b"(" + pair + b"u")
    assert read(whole(b"}" + pair + b"s")) == {"__array_interface__": {}}


# --- 6. arrays --------------------------------------------------------------------------------------------------------


def test_nested_object_arrays_are_read_by_the_same_rules() -> None:
    deep: Any = np.array([np.array([None, "a"], dtype=object), 1.5], dtype=object)
    file = io.BytesIO()
    joblib.dump({"a": deep}, file)
    assert read(file.getvalue())["a"][0][1] == "a"
    inner = whole(named("os:system"))
    assert "os.system" in refusal(wrapped(dtype("O"), (1,), inner))
    assert "something else where an object array should be" in refusal(wrapped(dtype("O"), (1,), whole(value(1))))


def test_the_depth_of_object_arrays_is_limited() -> None:
    raw = whole(array(dtype("O"), (1,), [None]))
    for _ in range(MOST_NESTED + 1):
        raw = whole(wrapped(dtype("O"), (1,), raw))
    with pytest.raises(Distrusted, match=f"more than {MOST_NESTED} times"):
        read(raw)


def test_a_length_beyond_the_file_allocates_nothing() -> None:
    raws = [
        whole(wrapped(dtype("f8"), (1 << 40, 9), b"")),
        whole(b"\x8e" + struct.pack("<Q", 1 << 42)),  # BINBYTES8
        whole(b"\x8d" + struct.pack("<Q", 1 << 42)),  # BINUNICODE8
        whole(b"\x96" + struct.pack("<Q", 1 << 32)),  # BYTEARRAY8
        whole(b"\x95" + struct.pack("<Q", 1 << 42)),  # FRAME
        whole(b"B" + struct.pack("<I", (1 << 32) - 1)),
        whole(b"\x8b" + struct.pack("<i", (1 << 31) - 1)),  # LONG4
    ]
    tracemalloc.start()
    try:
        for raw in raws:
            with pytest.raises(EOFError):
                read(raw)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_bytearray_of_protocol_5_loads() -> None:
    assert read(pickle.dumps(bytearray(b"ab" * 70000), 5)) == bytearray(b"ab" * 70000)
    assert read(pickle.dumps(bytearray(b"ab"), 5)) == bytearray(b"ab")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_pickles_of_every_protocol_load(protocol: int) -> None:
    model = LinearRegression().fit(np.eye(3), [1.0, 2.0, 3.0])
    assert read(pickle.dumps(model, protocol)).predict(np.eye(3)) == pytest.approx([1, 2, 3])


def test_a_memory_mapped_array_loads_as_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(4.0))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    joblib.dump(mapped, tmp_path / "file")
    for raw in ((tmp_path / "file").read_bytes(), pickle.dumps(mapped)):
        found = read(raw)
        assert type(found) is np.ndarray
        assert found.tolist() == [0, 1, 2, 3]
