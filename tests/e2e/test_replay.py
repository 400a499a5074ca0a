"""Before a new version answers, it answers recent rows: what fails on them is refused, what differs is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import peculiar
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.e2e.harness import Server, constant, serving, until, write_version
from tests.files import read_files

TABLE = pd.DataFrame({"town": np.resize(["Lima", "Oslo", None], 90), "size": np.linspace(0, 1, 90)})
SECRET = "Xanadu-4711"


def towns(unknown: str) -> Any:
    """Return a model of a table, which is compiled; `unknown` says what becomes of towns that it does not know."""
    encode = make_column_transformer((OneHotEncoder(handle_unknown=unknown), ["town"]), remainder=StandardScaler())
    return make_pipeline(encode, LogisticRegression()).fit(
        TABLE, (TABLE["size"] > 0.5).map({True: "large", False: "small"})
    )


def line(slope: float) -> LinearRegression:
    """Return a compiled model of two features."""
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    return LinearRegression().fit(rows, rows @ [slope, 2.0])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("replay")
    for model, first in (
        ("line", line(1.0)),
        ("towns", towns("ignore")),
        ("fussy", constant(1)),
        ("deadly", constant(1)),
    ):
        write_version(directory / "store" / model, 1, first)
    with serving(directory, wait_ready=True) as running:
        for model in ("line", "towns", "fussy", "deadly"):
            running.wait_active(model, 1)
        yield running


def replay_of(server: Server, model: str, version: int) -> dict[str, Any]:
    """Return what the gate replay says of a version that has been evaluated."""
    gates = until(lambda: server.version(model, version).get("gates"), f"the evaluation of {model}/{version}")
    found: dict[str, Any] = next(gate for gate in gates if gate["gate"] == "replay")
    return found


def test_the_first_version_answers_no_recent_rows(server: Server) -> None:
    assert replay_of(server, "line", 1)["verdict"] == "skipped"
    assert server.model("line")["active"]["engine"] == "onnx"
    assert server.model("towns")["active"]["engine"] == "onnx"
    assert server.model("fussy")["active"]["engine"] == "sklearn"


@pytest.mark.parametrize(
    ("how", "kind"),
    [("refuse", "it refuses them (ValueError), by column 'x0'"), ("nan", "a value that is not finite, or null")],
)
def test_a_hosted_version_that_fails_on_recent_rows_is_refused_although_every_made_up_row_passed(
    how: str, kind: str, server: Server
) -> None:
    version = {"refuse": 2, "nan": 3}[how]
    for row in [[13.0, 1.0], *[[float(number), 0.5] for number in range(5)]]:
        assert server.predict("fussy", [row]).status_code == 200
    server.drop("fussy", version, constant(version, peculiar.Picky, how=how))
    server.wait_state("fussy", version, "REJECTED")
    result = replay_of(server, "fussy", version)
    assert result["verdict"] == "refused"
    rows = {2: "1 of 6", 3: "2 of 12"}[version]
    answered = "which the active version 1 answers, are not answered as well"
    assert result["evidence"] == f"{rows} recent rows, {answered}; the first by predict: {kind}"
    assert server.active("fussy") == "1"
    others = [gate for gate in server.version("fussy", version)["gates"] if gate["gate"] != "replay"]
    assert {gate["verdict"] for gate in others} <= {"passed", "skipped", "warned"}


def test_a_version_whose_host_dies_on_a_recent_row_is_refused(server: Server) -> None:
    assert server.predict("deadly", [[13.0, 1.0]]).status_code == 200
    server.drop("deadly", 2, constant(2, peculiar.Suicidal))
    server.wait_state("deadly", 2, "REJECTED")
    assert replay_of(server, "deadly", 2)["evidence"] == "the process died with SIGSEGV"
    assert server.predict("deadly", [[13.0, 1.0]]).json()["predictions"] == [1.0]


def test_a_compiled_version_that_does_not_know_a_recent_category_is_refused_and_no_row_is_told(server: Server) -> None:
    url = server.url + "/models/towns/predict"
    for town in ("Lima", "Oslo", SECRET, "Lima"):
        body = {"instances": [{"town": town, "size": 0.25}]}
        assert server.client.post(url, json=body).json()["version"] == "1"
    server.drop("towns", 2, towns("error"))
    server.wait_state("towns", 2, "REJECTED")
    evidence = replay_of(server, "towns", 2)["evidence"]
    assert evidence.startswith("1 of 4 recent rows, which the active version 1 answers, are not answered as well")
    assert evidence.endswith("it refuses them (ValueError), by column 'town'")
    assert SECRET not in server.log_path.read_text()
    written = read_files(server.state).values()
    assert written
    assert not [1 for content in written if SECRET.encode() in content]
    server.operate("POST", "/models/towns/unpin")
    assert server.operate("POST", "/models/towns/pin", {"version": "2"}).status_code == 200, "a pin outweighs it"
    server.wait_active("towns", 2)
    assert replay_of(server, "towns", 2)["verdict"] == "skipped"


def test_rows_of_all_protocols_count_and_other_answers_are_evidence_only(server: Server) -> None:
    client, url = server.client, server.url
    native = {"instances": [[1.0, 1.0], [2.0, 1.0]]}
    tensor = {"name": "x", "shape": [3, 2], "datatype": "FP64", "data": [1, 2, 3, 4, 5, 6]}
    split = {"dataframe_split": {"columns": ["x0", "x1"], "data": [[4, 1]]}}
    for path, body in (
        ("/models/line/predict", native),
        ("/models/line/versions/1/predict", native),
        ("/v2/models/line/infer", {"inputs": [tensor]}),
        ("/v1/models/line:predict", native),
        ("/models/line/invocations", split),
    ):
        response = client.post(url + path, json=body)
        assert response.status_code == 200, (path, response.text)
    csv = client.post(url + "/models/line/predict", content="x0,x1\n7,1\n", headers={"content-type": "text/csv"})
    assert csv.status_code == 200
    assert client.post(url + "/models/line/predict", json={"instances": [["a", "b"]]}).status_code == 422
    server.drop("line", 2, line(1.5))
    server.wait_active("line", 2)
    result = replay_of(server, "line", 2)
    assert result["verdict"] == "passed"
    assert result["evidence"].startswith(
        "answers 11 recent rows, as the active version 1 does; predict: numbers differ by 3.5 at most, "
    )
