"""What we use of libraries beyond what they promise: it is there, it is bounded, and it is written down.

`make ends` runs this file with the oldest and the newest versions that are allowed, too.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import pickle
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import joblib.numpy_pickle
import numpy as np
import onnx
import pytest
import uvicorn
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler
from joblib.numpy_pickle_utils import _validate_fileobject_and_memmap
from onnx import TensorProto, helper
from packaging.requirements import Requirement
from uvicorn.protocols.http import flow_control, httptools_impl
from uvicorn.server import ServerState

import serving
from serving.host.restricted.unpickler import RestrictedUnpickler
from serving.http1 import HttpConnection
from serving.http1.connection_state import READY
from serving.plane.graph import open_session
from serving.server import DrainingServer
from tests.fakes import run
from tests.unit.http1.wire import Wire, predict, request

ROOT = Path(__file__).parents[2]
PAGE = next((ROOT / "docs" / "decisions").glob("*-private-names.md"))
BOUNDED = ("joblib", "onnxruntime", "uvicorn")


@pytest.mark.parametrize("name", BOUNDED)
def test_a_library_whose_private_names_are_used_has_an_upper_bound(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = next(each for each in project["dependencies"] if Requirement(each).name == name)
    bounds = Requirement(text).specifier
    assert {each.operator for each in bounds} == {">=", "<"}
    assert bounds.contains(version(name)), "the installed one is outside of what is allowed"
    assert f"`{text}`" in PAGE.read_text()


# --- uvicorn ----------------------------------------------------------------------------------------------------------


def inherited_by(kind: type, parent: type) -> set[str]:
    """Return the names of `parent` that the methods of `kind` use of themselves."""
    tree, source = ast.parse(inspect.getsource(kind)), inspect.getsource(parent)
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            used.add(node.attr)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call):
            called = node.value.func
            if isinstance(called, ast.Name) and called.id == "super":
                used.add(node.attr)
    return {name for name in used if name in vars(parent) or re.search(rf"self\.{name}\b", source)}


@pytest.mark.parametrize(
    ("kind", "parent"),
    [(HttpConnection, httptools_impl.HttpToolsProtocol), (DrainingServer, uvicorn.Server)],
)
def test_the_page_names_all_that_is_inherited_from_uvicorn(kind: type, parent: type) -> None:
    page = PAGE.read_text()
    names = inherited_by(kind, parent) - {"__init__"}
    assert len(names) > 5
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_uvicorns_protocol_has_what_a_connection_uses_of_it() -> None:
    async def scenario() -> None:
        config = uvicorn.Config(lambda: None, lifespan="off", ws="none", log_config=None)  # type: ignore[arg-type]
        config.load()
        made = httptools_impl.HttpToolsProtocol(config, ServerState(), {})
        missing = {
            name for name in inherited_by(HttpConnection, httptools_impl.HttpToolsProtocol) if not hasattr(made, name)
        }
        assert missing - {"url"} == set()  # set with the first request

    asyncio.run(scenario())


def test_uvicorn_overrides_nothing_of_ours() -> None:
    """A name of ours that uvicorn begins to use for itself would be changed behind our back."""
    ours = {name for name in vars(HttpConnection) if not name.startswith("__")}
    assigned = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(HttpConnection)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    names = {name for name in ours | assigned if name.startswith("_")}
    shared = {name for name in names if hasattr(httptools_impl.HttpToolsProtocol, name)}
    assert shared == {"_unset_keepalive_if_required"}
    source = inspect.getsource(httptools_impl.HttpToolsProtocol)
    assert {name for name in names - shared if re.search(rf"self\.{name}\b", source)} == set()


def test_a_cycle_of_uvicorn_writes_to_the_transport_it_is_given_and_tells_when_it_is_done() -> None:
    """Of a transport it uses what `AnswerTransport` has; of the connection, what is called when it is done."""
    source = inspect.getsource(httptools_impl.RequestResponseCycle)
    used = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self.transport"
    }
    assert used == {"write", "close", "is_closing"}

    async def scenario() -> None:
        wire = Wire()
        await wire.play(request(b"/wait"))
        cycle = wire.connection.cycle
        state = (cycle.response_started, cycle.response_complete, cycle.more_body, cycle.disconnected, cycle.keep_alive)
        assert state == (False, False, False, False, True)
        assert isinstance(cycle.message_event, asyncio.Event)
        await wire.play(Wire.answer)
        assert (cycle.response_started, cycle.response_complete) == (True, True)
        assert wire.connection._state is READY
        assert wire.connection.timeout_keep_alive_task is not None, "uvicorn has begun to wait for the next request"
        total = wire.connection.server_state.total_requests
        await wire.play(predict(), request(b"/other"))
        assert wire.connection.server_state.total_requests == total + 2

    run(scenario())


def test_uvicorns_flow_control_is_what_ours_changes() -> None:
    async def scenario() -> None:
        flow = flow_control.FlowControl(asyncio.Transport())
        assert (flow.read_paused, flow.write_paused) == (False, False)
        assert hasattr(flow, "_transport")
        assert flow_control.HIGH_WATER_LIMIT == 65536

    asyncio.run(scenario())
    methods = ("pause_reading", "resume_reading", "pause_writing", "resume_writing", "drain")
    assert all(callable(getattr(flow_control.FlowControl, name)) for name in methods)
    assert httptools_impl.STATUS_LINE[431].startswith(b"HTTP/1.1 431 ")


def test_uvicorns_server_has_what_ours_uses_of_it() -> None:
    made = uvicorn.Server(uvicorn.Config(lambda: None, lifespan="off", log_config=None))  # type: ignore[arg-type]
    names = inherited_by(DrainingServer, uvicorn.Server) - {"servers", "lifespan"}  # set when it starts
    assert {name for name in names if not hasattr(made, name)} == set()
    assert all(asyncio.iscoroutinefunction(getattr(made, name)) for name in ("_serve", "startup", "shutdown"))


# --- onnxruntime ------------------------------------------------------------------------------------------------------


def make_session() -> Any:
    node = helper.make_node("Add", ["x", "x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 2]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return open_session(onnx.ModelProto.SerializeToString(model))


def test_a_session_of_onnxruntime_runs_by_what_is_called_directly() -> None:
    """`plane/graph.py` calls what `run` calls, with the same three arguments."""
    session = make_session()
    rows = np.ones((3, 2))
    direct = session._sess.run(["y"], {"x": rows}, None)
    np.testing.assert_array_equal(direct, session.run(["y"], {"x": rows}))

    calls: list[tuple[Any, ...]] = []
    original = session._sess

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def run(self, *args: Any) -> list[Any]:
            calls.append(args)
            return []

    session._sess = Recorder()
    options, feed = object(), {"x": rows}
    session.run(["y"], feed, options)
    assert calls == [(["y"], feed, options)]


# --- joblib -----------------------------------------------------------------------------------------------------------


def test_joblib_maps_arrays_by_the_function_that_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`host/loading.py` replaces `make_memmap` to take all arrays from one mapping."""
    path = str(tmp_path / "array.joblib")
    array = np.arange(6.0).reshape(2, 3)
    joblib.dump([array], path)
    calls: list[tuple[Any, ...]] = []

    def replaced(
        name: str, dtype: Any = None, shape: Any = None, order: str = "", mode: str = "", offset: int = -1
    ) -> Any:
        calls.append((name, dtype, shape, order, mode))
        return np.ndarray(shape, dtype, buffer=Path(path).read_bytes(), offset=offset, order=order)  # type: ignore[call-overload]

    monkeypatch.setattr(joblib.numpy_pickle, "make_memmap", replaced)
    (found,) = joblib.load(path, mmap_mode="c")
    np.testing.assert_array_equal(found, array)
    assert calls == [(path, np.dtype(float), (2, 3), "C", "c")]


def test_joblib_writes_the_wrapper_that_is_read(tmp_path: Path) -> None:
    wrapper = NumpyArrayWrapper(np.ndarray, (2,), "C", np.dtype(float), numpy_array_alignment_bytes=16)
    parts = {"subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"}
    assert set(vars(wrapper)) == parts
    assert list(inspect.signature(wrapper.read).parameters) == ["unpickler", "ensure_native_byte_order"]


def test_joblib_opens_files_by_what_is_called(tmp_path: Path) -> None:
    for compress in (0, 3):
        path = str(tmp_path / f"{compress}.joblib")
        joblib.dump([1], path, compress=compress)
        with open(path, "rb") as raw, _validate_fileobject_and_memmap(raw, path, None) as (file, mode):  # noqa: PTH123
            assert (mode, file is raw) == (None, compress == 0)
            assert file.read(2)[:1] == b"\x80"


def test_joblibs_reader_is_pythons_own_with_a_table_of_opcodes() -> None:
    assert issubclass(NumpyUnpickler, pickle._Unpickler)  # type: ignore[attr-defined]
    names = list(inspect.signature(NumpyUnpickler).parameters)
    assert names == ["filename", "file_handle", "ensure_native_byte_order", "mmap_mode"]
    overridden = {name for name in vars(RestrictedUnpickler) if name.startswith("load_")}
    assert {name for name in overridden if not hasattr(NumpyUnpickler, name)} == set()
    assert set(RestrictedUnpickler.dispatch) == set(NumpyUnpickler.dispatch)


def test_the_page_names_what_is_used_of_the_others() -> None:
    page = PAGE.read_text()
    for name in ("_sess", "make_memmap", "_validate_fileobject_and_memmap", "NumpyUnpickler", "NumpyArrayWrapper"):
        assert f"`{name}`" in page
        assert any(name in path.read_text() for path in Path(serving.__file__).parent.rglob("*.py"))
