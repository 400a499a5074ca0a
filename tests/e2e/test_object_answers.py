"""A model whose predict gives dicts: JSON objects over HTTP, and a clear refusal where a form has none."""

from __future__ import annotations

from pathlib import Path

import peculiar

from tests.e2e.harness import constant, serving

ROWS = [[1.0, 2.0], [3.0, 4.0]]
OBJECTS = [{"sum": 3.0, "day": "2026-11-20", "note": None}, {"sum": 7.0, "day": "2026-11-20", "note": None}]


def test_dicts_are_objects_in_json_and_refused_in_other_forms(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.drop("m", 1, constant(1, peculiar.Describes))
        server.wait_active("m", 1)
        assert server.predict("m", ROWS).json()["predictions"] == OBJECTS
        for path in ("/v1/models/m:predict", "/models/m/invocations"):
            body = {"instances": ROWS} if path.startswith("/v1") else {"inputs": ROWS}
            assert server.client.post(server.url + path, json=body).json() == {"predictions": OBJECTS}
        for form in ("text/csv", "application/x-npy", "application/vnd.apache.arrow.stream"):
            refused = server.client.post(
                server.url + "/models/m/predict", json={"instances": ROWS}, headers={"Accept": form}
            )
            assert (refused.status_code, "ask for application/json" in refused.json()["detail"]) == (406, True)
        tensor = {"name": "x", "datatype": "FP64", "shape": [2, 2], "data": ROWS}
        refused = server.client.post(server.url + "/v2/models/m/infer", json={"inputs": [tensor]})
        assert (refused.status_code, "predict gave objects" in refused.json()["error"]) == (500, True)
