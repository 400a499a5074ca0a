"""What TensorFlow Serving's clients are told of models."""

from __future__ import annotations

from typing import Any

import pytest

from serving.api.tensorflow.model_status import _STATES
from serving.domain.state import State
from serving.plane.active_reference import ActiveReference
from tests.fakes import call, make_app, make_model_reference, make_servable

OK = {"error_code": "OK", "error_message": ""}


def two_versions() -> Any:
    one, two, three = (make_servable("iris", version) for version in ("1", "2", "3"))
    return make_app(ActiveReference({"iris": make_model_reference(three, one, two)}))


def test_a_model_has_the_state_of_each_of_its_versions() -> None:
    assert call(make_app(), "GET", "/v1/models/iris").json() == {
        "model_version_status": [
            {"version": "4", "state": "LOADING", "status": OK},
            {"version": "3", "state": "AVAILABLE", "status": OK},
            {
                "version": "2",
                "state": "END",
                "status": {"error_code": "FAILED_PRECONDITION", "error_message": "golden"},
            },
        ]
    }


def test_one_version_is_asked_for_by_name_or_label() -> None:
    expected = {"model_version_status": [{"version": "3", "state": "AVAILABLE", "status": OK}]}
    assert call(make_app(), "GET", "/v1/models/iris/versions/3").json() == expected
    assert call(make_app(), "GET", "/v1/models/iris/labels/stable").json() == expected


def test_every_state_has_its_name_there() -> None:
    assert _STATES.keys() == set(State)


def test_metadata_has_a_signature_for_each_method() -> None:
    response = call(make_app(), "GET", "/v1/models/iris/metadata")
    document = response.json()
    assert document["model_spec"] == {"name": "iris", "signature_name": "", "version": "3"}
    assert response.headers["x-model-version"] == "3"
    definitions = document["metadata"]["signature_def"]["signature_def"]
    assert set(definitions) == {"serving_default", "predict", "predict_proba"}
    proba = definitions["predict_proba"]
    assert list(proba["inputs"]) == ["x0", "x1", "x2", "x3"]
    dimensions = proba["outputs"]["predict_proba"]["tensor_shape"]["dim"]
    assert [dimension["size"] for dimension in dimensions] == ["-1", "3"]


def test_previous_is_the_version_that_was_active_last() -> None:
    document = call(two_versions(), "GET", "/v1/models/iris/labels/previous/metadata").json()
    assert document["model_spec"]["version"] == "2"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/irsi",
        "/v1/models/irsi/metadata",
        "/v1/models/iris/versions/9",
        "/v1/models/iris/versions/9/metadata",
        "/v1/models/iris/labels/previous",
        "/v1/models/-",
    ],
)
def test_what_is_not_there_is_404_in_the_protocols_shape(path: str) -> None:
    response = call(make_app(), "GET", path)
    assert (response.status_code, set(response.json())) == (404, {"error"})


def test_reading_needs_the_scope_read() -> None:
    response = call(make_app(security={"read_token": "t" * 20}), "GET", "/v1/models/iris")
    assert (response.status_code, set(response.json())) == (401, {"error"})
