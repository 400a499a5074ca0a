"""The product in one page: drop a file, it answers; a broken one changes nothing; a better one takes over."""

from __future__ import annotations

from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tests.e2e.harness import Server, serving, until


def test_the_first_minute(tmp_path: Path) -> None:
    """One server from its empty store on: each part of the story goes on where the one before has ended."""
    with serving(tmp_path) as server:
        _a_dropped_file_answers_a_broken_one_says_why_a_better_one_takes_over(server)
        _rows_may_be_objects_by_feature_name_and_one_row_may_be_asked_alone(server)
        _a_lone_file_is_a_version_named_by_when_it_was_first_seen(server)


def _a_dropped_file_answers_a_broken_one_says_why_a_better_one_takes_over(server: Server) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    assert server.get("/health/live")
    assert server.client.get(server.url + "/health/ready").status_code == 503
    (server.store / "iris").mkdir()

    joblib.dump(LogisticRegression(max_iter=300).fit(X, y), server.store / "iris" / "1.joblib")
    server.wait_active("iris", 1)
    server.wait_ready()
    answer = server.predict("iris", [[5.1, 3.5, 1.4, 0.2]])
    assert answer.json() == {"model": "iris", "version": "1", "predictions": [0]}
    assert answer.headers["x-model-name"] == "iris"
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers["x-request-id"]

    (server.store / "iris" / "2.joblib").write_bytes(b"this is no model")
    refused = server.wait_state("iris", 2, "REJECTED")
    assert refused["gates"][-1]["gate"] == "format"
    assert server.active("iris") == "1"
    failure = server.get("/models/active")["models"][0]["last_failure"]
    assert (failure["version"], failure["gate"]) == ("2", "format")
    assert failure["reason"]

    joblib.dump(LogisticRegression(max_iter=300).fit(X * 2, y), server.store / "iris" / "3.joblib")
    server.wait_active("iris", 3)
    assert server.predict("iris", [[5.1, 3.5, 1.4, 0.2]]).json()["version"] == "3"
    assert server.predict("iris", [[5.1, 3.5, 1.4, 0.2]], version="1").json()["version"] == "1"
    assert server.predict("iris", [[5.1, 3.5, 1.4, 0.2]], version="2").status_code == 404


def _rows_may_be_objects_by_feature_name_and_one_row_may_be_asked_alone(server: Server) -> None:
    X, _ = load_iris(return_X_y=True, as_frame=True)
    row = dict(zip(reversed(X.columns), reversed(X.iloc[0].tolist()), strict=True))
    asked = server.client.post(server.url + "/predict", json={"input": row, "method": "predict_proba"})
    assert asked.json()["version"] == "3"
    assert len(asked.json()["prediction"]) == 3
    missing = server.client.post(server.url + "/predict", json={"instances": [{"petal length (cm)": 1.0}]})
    assert missing.status_code == 422
    assert "sepal length (cm)" in missing.json()["detail"]


def _a_lone_file_is_a_version_named_by_when_it_was_first_seen(server: Server) -> None:
    X, y = load_iris(return_X_y=True)

    def put(scale: float) -> str:
        before = server.active("churn")
        aside = server.store / ".churn.aside"
        joblib.dump(LogisticRegression(max_iter=300).fit(X * scale, y), aside)
        aside.rename(server.store / "churn.joblib")
        return until(lambda: (now := server.active("churn")) != before and now, "another version")

    first = put(1.0)
    second = put(2.0)
    assert first < second
    assert len(first) == len("20261120T080000Z")
    assert put(1.0) == first, "the same content is the same version"
    assert server.stop() == 0
    server.start(wait_ready=True)
    server.wait_active("churn", first)
