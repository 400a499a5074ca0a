"""What a compiled form takes in each process that opens it, and what could be shared between processes."""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from benchmarks.memory import MB
from benchmarks.result import Result, Table, figure
from benchmarks.run import Run
from serving.allocator import return_freed_memory
from serving.domain.compiled_form import MATRIX_INPUT, Graph
from serving.domain.text import one_line
from serving.host.graph_check.session_size import open_sessions
from serving.plane.graph import GraphSession, open_session
from serving.silence import load_onnxruntime

ROWS, FEATURES = 64, 30
LEAST_SHARED_BYTES = 64 << 10
OPENED, BEFORE = "as the server opens it", "as onnxruntime opens it"
SMALL, NETWORK = "logistic pipeline", "neural network"
METHOD = """Each model is converted to a graph, and the graph lies in a file that all processes map. A process is \
forked, opens the logistic pipeline and answers, then does the same with the measured graph, opened in one of several \
ways: 20 times 1 row and 64 rows. The figures are the growth of its own memory (`Private_Dirty` in \
`/proc/<pid>/smaps_rollup`) by that; "at most" is the growth of its peak. The forests have depth 12 and were fitted \
on 20,000 rows of 30 features. "Counted" is what the checker counts (`bounds.session_bytes`), which the budget \
`engine.workers_mb` goes by. What onnxruntime opens keeps the bytes that it was opened with, and what the C library \
has free between blocks in use; the server gives both back. Nothing else is shared between workers: graphs of trees \
are copied into structures with addresses of that process, whatever they are read from. Mapped constants help \
matrices, and no forest; a checker would have to cut them out of each graph. A session that was opened before the \
fork is shared, but workers live longer than versions. onnxruntime's own format would save almost half, but is \
another parser of bytes that a host has influenced, inside the server, and has to be written anew for each \
release."""

Open = Callable[[Any], Any]


class Way(NamedTuple):
    """One way to open a graph: `prepare` runs elsewhere, `open` gets what it returned in the measured process."""

    open: Open
    prepare: Callable[[Graph, Path], Any] = lambda graph, scratch: None


class Grown(NamedTuple):
    """How many bytes a process has grown by, for good and for a moment; None where a graph cannot be opened so."""

    own: int | None
    peak: int | None


def run(run: Run) -> Result:
    """Open every graph in every way."""
    trees = run.count((10, 100, 500), (5, 10, 20))
    names = _in_child(lambda: _write_graphs(run.scratch, trees, run.count(20_000, 1000)))
    graphs = {name: _map_graph(run.scratch / name, outputs) for name, outputs in names.items()}
    largest = f"forest, {trees[-1]} trees"
    sizes, ratio = [], 0.0
    for name, graph in graphs.items():
        before, now = (_measure(graph, way, graphs[SMALL], run.scratch) for way in (BEFORE, OPENED))
        counted = _in_child(lambda graph=graph: open_sessions([graph])[1])
        if name == largest and now.own and before.own:
            ratio = now.own / before.own
        figures = (len(graph.content), before.own, now.own, counted, now.peak)
        sizes.append((name, *(_in_mb(one) for one in figures)))
    ways = []
    for way in WAYS:
        found = [_measure(graphs[name], way, graphs[SMALL], run.scratch).own for name in (largest, NETWORK)]
        ways.append((way, *map(_in_mb, found)))
    inherited = [_inherit(graphs[name]) for name in (largest, NETWORK)]
    ways.append(("opened before the process is forked", *map(_in_mb, inherited)))
    return Result(
        name="graph_memory",
        title="What a compiled form takes in each worker",
        method=METHOD,
        figures=(figure(f"{largest}: {OPENED} / {BEFORE}", "×", ratio),),
        tables=(
            Table("MB in each process", ("model", "graph", BEFORE, OPENED, "counted", "at most"), tuple(sizes)),
            Table("MB in each process, by how it is opened", ("how", largest, NETWORK), tuple(ways)),
        ),
    )


def _write_graphs(scratch: Path, trees: tuple[int, ...], rows: int) -> dict[str, Any]:
    """Write a graph of each model to a file with its name; returns their outputs by name."""
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from serving.compiling.convert import convert_estimator
    from serving.host.graph_check.graph_check import bound_graphs
    from serving.host.signature_of_estimator import examine_estimator

    dice = np.random.default_rng(0)
    x = dice.normal(size=(rows, FEATURES))
    value = x[:, 0] * x[:, 1] + dice.normal(size=rows) / 2
    label = value > 0
    models: dict[str, Any] = {
        SMALL: make_pipeline(StandardScaler(), LogisticRegression()).fit(x, label),
        "gradient boosting, 200 trees": HistGradientBoostingRegressor(max_iter=200, early_stopping=False).fit(x, value),
    }
    for count in trees:
        models[f"forest, {count} trees"] = RandomForestClassifier(count, max_depth=12, random_state=0).fit(x, label)
    network = MLPRegressor(hidden_layer_sizes=(1000, 1000), max_iter=1, random_state=0)
    models[NETWORK] = network.fit(x[:500], value[:500])
    found = {}
    for name, model in models.items():
        examined = examine_estimator(model)
        (graph,) = bound_graphs([convert_estimator(examined)], examined.signature).graphs
        _write(scratch / name, graph.content)
        found[name] = graph.outputs
    return found


def _write(path: Path, content: Any) -> None:
    """Write a file to the disk: pages that are only in memory would count as those of whoever maps them."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _map_graph(path: Path, outputs: Any) -> Graph:
    with path.open("rb") as file:
        return Graph(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), outputs)


# --- ways to open a graph ---------------------------------------------------------------------------------------------


def _options(**entries: str) -> Any:
    options = load_onnxruntime().SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    for name, value in entries.items():
        options.add_session_config_entry(f"session.{name}", value)
    return options


def _open(source: str | bytes, options: Any) -> Any:
    session = load_onnxruntime().InferenceSession(source, options, providers=["CPUExecutionProvider"])._sess
    return_freed_memory()
    return session


def _write_file(graph: Graph, scratch: Path) -> str:
    path = scratch / "graph.onnx"
    _write(path, graph.content)
    return str(path)


def _open_with_arena(path: str) -> Any:
    onnxruntime = load_onnxruntime()
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    info = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(info, None)
    options = _options(use_env_allocators="1")
    options.enable_cpu_mem_arena = True
    return _open(path, options)


def _write_own_format(graph: Graph, scratch: Path) -> str:
    options = _options(save_model_format="ORT")
    options.optimized_model_filepath = str(scratch / "graph.ort")
    _open(bytes(graph.content), options)
    return options.optimized_model_filepath  # type: ignore[no-any-return]


def _write_constants(graph: Graph, scratch: Path) -> Any:
    """Write a graph without its large constants, and each of those to a file; returns where all of them are."""
    import onnx

    model: Any = onnx.ModelProto()
    model.ParseFromString(bytes(graph.content))
    constants = []
    for place, tensor in enumerate(model.graph.initializer):
        array = onnx.numpy_helper.to_array(tensor)
        if array.nbytes >= LEAST_SHARED_BYTES:
            path = scratch / f"constant-{place}"
            _write(path, array.tobytes())
            constants.append((tensor.name, str(path), array.dtype.str, array.shape))
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=path.name)
    path = scratch / "shared.onnx"
    _write(path, model.SerializeToString())
    return str(path), constants


def _open_with_constants(written: Any) -> Any:
    path, constants = written
    options = _options(disable_prepacking="1")
    values = []
    for name, file, dtype, shape in constants:
        array = np.memmap(file, dtype=dtype, mode="r", shape=tuple(shape))
        values.append(load_onnxruntime().OrtValue.ortvalue_from_numpy(np.asarray(array)))
        options.add_initializer(name, values[-1])
    return _KeptSession(_open(path, options), values)


class _KeptSession:
    """A session, and what has to live as long."""

    def __init__(self, session: Any, kept: Any) -> None:
        self.run, self._kept = session.run, kept


_MAPPED = {"use_memory_mapped_ort_model": "1", "use_ort_model_bytes_for_initializers": "1"}
WAYS: Mapping[str, Way] = {
    BEFORE: Way(lambda graph: open_session(bytes(graph.content))),
    OPENED: Way(GraphSession),
    "from a file": Way(lambda path: _open(path, _options()), _write_file),
    "constants in one layout only": Way(lambda path: _open(path, _options(disable_prepacking="1")), _write_file),
    "one arena for all sessions": Way(_open_with_arena, _write_file),
    "from onnxruntime's own format": Way(
        lambda path: _open(path, _options(load_model_format="ORT")), _write_own_format
    ),
    "the same, mapped and used where it is": Way(
        lambda path: _open(path, _options(load_model_format="ORT", **_MAPPED)), _write_own_format
    ),
    "constants in a mapped file": Way(_open_with_constants, _write_constants),
}


# --- processes --------------------------------------------------------------------------------------------------------


def _in_child(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a forked process, as JSON; None when it fails or ends the process."""
    receiver, sender = os.pipe()
    gc.collect()
    gc.freeze()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(sender, orjson.dumps(work()))
        except Exception as error:  # noqa: BLE001  (this way is not possible)
            print(one_line(str(error), 200))
        finally:
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return orjson.loads(answer) if answer else None


def _measure(graph: Graph, name: str, small: Graph, scratch: Path) -> Grown:
    way = WAYS[name]
    source = _in_child(lambda: way.prepare(graph, scratch)) or graph

    def work() -> list[int]:
        _answer(GraphSession(small), small)
        before, peak = _settle()
        session = way.open(source)
        _answer(session, graph)
        if name != BEFORE:
            return_freed_memory()
        return [_read("smaps_rollup", "Private_Dirty") - before, _read("status", "VmHWM") - peak]

    own, most = _in_child(work) or (None, None)
    return Grown(own, most)


def _inherit(graph: Graph) -> int | None:
    """Return how a process grows that answers from a session which was opened before it was forked."""

    def open_and_fork() -> Any:
        session = GraphSession(graph)
        _answer(session, graph)

        def answer() -> int:
            before, _ = _settle()
            _answer(session, graph)
            return _read("smaps_rollup", "Private_Dirty") - before

        return _in_child(answer)

    grown: int | None = _in_child(open_and_fork)
    return grown


def _answer(session: Any, graph: Graph) -> None:
    run = session._run if isinstance(session, GraphSession) else session.run
    outputs = sorted({name for names in graph.outputs.values() for name in names})
    for rows in (1, ROWS) * 20:
        run(outputs, {MATRIX_INPUT: np.ones((rows, FEATURES))}, None)


def _settle() -> tuple[int, int]:
    gc.collect()
    return_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")
    return _read("smaps_rollup", "Private_Dirty"), _read("status", "VmHWM")


def _read(file: str, name: str) -> int:
    lines = Path(f"/proc/self/{file}").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def _in_mb(size: int | None) -> float | str:
    return "not possible" if size is None else size / MB
