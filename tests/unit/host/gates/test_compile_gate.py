"""The compile gate: its evidence, and that it refuses only where a compiled form is required."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from serving.domain.compiled_form import UNSIGNED_FILE, Compilation
from serving.domain.report import Verdict
from serving.domain.sandbox import LAYERS, Sandbox
from serving.domain.version import Format
from serving.host.gates.compile_gate import start_compiler
from serving.plane.graph import GraphSession
from serving.rows.parsing import rows_to_batch
from serving.wire.evaluation import CompileRequest
from tests.e2e.material.peculiar import Constant
from tests.unit.host.candidates import ROWS, WORDS, Candidate, MakeCandidate
from tests.unit.host.forgery import FILE, make_request
from tests.unit.host.gates.test_provenance_gate import OURS, THEIRS, sign
from tests.unit.host.gates.test_provenance_gate import TRUSTED as TRUSTED_KEYS
from tests.unit.host.graph_check.graphs import constant, model, node

TRUSTED = (f"{Constant.__module__}.Constant",)
MakeRequest = Callable[..., CompileRequest]


def test_a_model_with_a_proved_graph_is_returned_as_graphs(candidate: MakeCandidate) -> None:
    outcome = candidate(LogisticRegression().fit(ROWS, WORDS)).evaluate(compile=CompileRequest(), trust="known")
    assert outcome["compile"].verdict is Verdict.PASSED
    assert "answers alike on" in outcome["compile"].evidence
    assert outcome.model is None
    assert {method for graph in outcome.graphs for method in graph.outputs} == set(outcome.report.signature.methods)
    assert outcome.report.is_ready
    assert outcome.report.is_compiled
    assert outcome.report.engine == "onnx"
    assert "onnxruntime" in outcome.report.libraries
    assert outcome.report.memory_bytes == sum(len(graph.content) for graph in outcome.graphs)


def test_a_model_without_a_graph_stays_in_its_host_with_a_reason(candidate: MakeCandidate) -> None:
    outcome = candidate(Constant(3.0).fit(ROWS)).evaluate(
        compile=CompileRequest(), trust="known", pickle_trusted=TRUSTED
    )
    assert outcome["compile"].verdict is Verdict.SKIPPED
    assert outcome["compile"].evidence.startswith("stays in its host: Constant is no estimator of scikit-learn")
    assert outcome.model is not None
    assert not outcome.graphs
    assert outcome.report.engine == "sklearn"


def test_a_model_that_needs_full_trust_stays_in_its_host(candidate: MakeCandidate) -> None:
    outcome = candidate(make_pipeline(Foreign(), LogisticRegression()).fit(ROWS, WORDS)).evaluate(
        compile=CompileRequest(), trust="any"
    )
    assert outcome["load"].verdict is Verdict.WARNED
    assert "security.trust is any" in outcome["load"].evidence
    assert "security.trust is any" in outcome["compile"].evidence
    assert outcome.model is not None
    assert not outcome.graphs


def test_a_known_model_stays_in_its_host_where_files_may_run_anything(candidate: MakeCandidate) -> None:
    outcome = candidate(LogisticRegression().fit(ROWS, WORDS)).evaluate(compile=CompileRequest(), trust="any")
    assert outcome["load"].verdict is Verdict.PASSED
    assert outcome["compile"].evidence.startswith("stays in its host: security.trust is any")
    assert outcome.model is not None


def test_a_model_stays_in_its_host_where_a_sandbox_layer_is_missing(
    candidate: MakeCandidate,
) -> None:
    made = candidate(LogisticRegression().fit(ROWS, WORDS))
    lacking = Sandbox(active=LAYERS[:-1], missing={LAYERS[-1]: "Function not implemented"})
    outcome = made.evaluate(lacking, compile=CompileRequest(), trust="known")
    assert outcome["compile"].verdict is Verdict.SKIPPED
    assert outcome["compile"].evidence.startswith("stays in its host: a layer of the sandbox is missing")
    assert f"no {LAYERS[-1]} (Function not implemented)" in outcome["compile"].evidence
    assert outcome.report.compilation is not None
    assert not outcome.report.compilation.is_final, "another kernel may have that layer"
    optional = Sandbox(active=LAYERS, missing={"network_namespace": "Operation not permitted"})
    assert made.evaluate(optional, compile=CompileRequest(), trust="known").graphs


def test_a_refusal_names_the_setting_that_would_allow_the_file(candidate: MakeCandidate) -> None:
    outcome = candidate(make_pipeline(Foreign(), LogisticRegression()).fit(ROWS, WORDS)).evaluate(trust="known")
    assert outcome["load"].verdict is Verdict.REFUSED
    assert f'security.pickle_trusted = ["{Foreign.__module__}.Foreign"]' in outcome["load"].evidence


class Foreign(StandardScaler):
    """A scaler that is not scikit-learn's own class."""


def test_a_model_without_a_graph_is_refused_where_one_is_required(candidate: MakeCandidate) -> None:
    outcome = candidate(Constant(3.0).fit(ROWS)).evaluate(compile=CompileRequest(mode="require"))
    assert outcome["compile"].verdict is Verdict.REFUSED
    assert "engine.compile = require" in outcome["compile"].evidence
    assert outcome.model is None


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"nodes": 10}, "nodes, at most 10 are compiled"),
        ({"bytes": 1000}, "allowed are 0 MB (engine.compile_mb)"),
        ({"seconds": 0.01}, "not finished after 0.01 s (engine.compile_seconds)"),
    ],
)
def test_a_compile_budget_ends_only_compiling(candidate: MakeCandidate, limit: dict[str, float], reason: str) -> None:
    forest = RandomForestClassifier(5, random_state=0).fit(ROWS, WORDS)
    outcome = candidate(forest).evaluate(compile=CompileRequest(**limit), trust="known")
    assert reason in outcome["compile"].evidence
    assert outcome.report.is_ready
    assert outcome.model is not None
    compilation = outcome.report.compilation
    assert compilation is not None
    assert compilation.is_final == ("seconds" not in limit)


def test_compiling_can_be_turned_off(candidate: MakeCandidate) -> None:
    outcome = candidate(LogisticRegression().fit(ROWS, WORDS)).evaluate(compile=CompileRequest(mode="off"))
    assert outcome["compile"] == outcome["compile"].model_copy(
        update={"verdict": Verdict.SKIPPED, "evidence": "engine.compile is off"}
    )
    assert outcome.report.compilation is None
    assert outcome.model is not None


def test_a_known_verdict_is_not_computed_again(candidate: MakeCandidate) -> None:
    known = Compilation(engine=None, reason="slower yesterday")
    outcome = candidate(LogisticRegression().fit(ROWS, WORDS)).evaluate(compile=CompileRequest(known=known))
    assert outcome["compile"].evidence == "stays in its host: slower yesterday"
    assert outcome.report.compilation == known
    assert outcome.model is not None


# --- files of ONNX ----------------------------------------------------------------------------------------------------


def doubling_graph(candidate: MakeCandidate) -> Candidate:
    made = model([node("Mul", "X factor", "y")], [constant("factor", [2.0])])
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, 1]))
    return candidate(made.SerializeToString(), "model.onnx", Format.ONNX)


def test_an_unsigned_onnx_file_stays_in_its_host_with_advice(candidate: MakeCandidate) -> None:
    made = doubling_graph(candidate)
    for _ in range(2):
        outcome = made.evaluate(compile=CompileRequest(), trust="known", trusted_keys=TRUSTED_KEYS)
        assert outcome["compile"].evidence == f"stays in its host: {UNSIGNED_FILE}"
        assert outcome.model is not None
        assert outcome.report.compilation is not None
        assert outcome.report.compilation.is_final
        sign(made, THEIRS)  # also with a signature of a key that is not trusted


def test_an_onnx_file_signed_by_a_trusted_key_is_compiled(candidate: MakeCandidate) -> None:
    made = doubling_graph(candidate)
    sign(made, OURS)
    outcome = made.evaluate(compile=CompileRequest(), trust="known", trusted_keys=TRUSTED_KEYS)
    assert outcome["compile"].verdict is Verdict.PASSED, outcome["compile"].evidence
    assert outcome.graphs


def test_an_onnx_file_that_will_be_signed_counts_as_signed(candidate: MakeCandidate) -> None:
    options: dict[str, Any] = {"compile": CompileRequest(), "trust": "known", "publisher_key": TRUSTED_KEYS[0]}
    assert doubling_graph(candidate).evaluate(trusted_keys=TRUSTED_KEYS, **options).graphs
    assert not doubling_graph(candidate).evaluate(**options).graphs


@pytest.mark.parametrize(
    ("fields", "may"),
    [
        ({}, True),
        ({"trust": "signed"}, True),
        ({"trust": "any"}, False),
        ({"is_respawn": True}, False),
        ({"compile": CompileRequest(mode="off")}, False),
        ({"compile": CompileRequest(known=Compilation(engine=None, reason="slower"))}, False),
        ({"format": Format.ONNX}, False),
        ({"format": Format.ONNX, "publisher_key": "ed25519:..."}, True),
        ({"format": Format.ONNX, "files": (FILE, FILE.model_copy(update={"name": "manifest.sig"}))}, True),
    ],
)
def test_a_compiler_process_is_forked_only_where_a_graph_is_possible(fields: dict[str, Any], may: bool) -> None:
    asked = make_request(**{"compile": CompileRequest(), **fields})
    assert asked.may_compile == may
    compiler = start_compiler(asked, Sandbox(active=LAYERS), lambda: None)
    if compiler is not None:
        compiler.dismiss()
    assert (compiler is not None) == may


def test_a_model_with_a_dropped_column_can_be_compiled(candidate: MakeCandidate) -> None:
    table = pd.DataFrame({"id": [f"row {place}" for place in range(12)], "size": np.arange(12.0)})
    used = ColumnTransformer([("n", StandardScaler(), ["size"])])
    fitted = make_pipeline(used, LogisticRegression()).fit(table, [0, 1] * 6)
    outcome = candidate(fitted).evaluate(compile=CompileRequest(), trust="known")
    assert outcome.report.is_compiled, outcome["compile"].evidence
    assert outcome.report.signature is not None
    assert outcome.report.compilation is not None
    session = GraphSession(outcome.graphs[0])
    batch = rows_to_batch(outcome.report.signature, table.drop(columns="id").to_dict("records"))
    assert session.answer("predict", batch).list_rows() == fitted.predict(table).tolist()
