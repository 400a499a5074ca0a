"""What the OpenAPI document promises, asked of a live server with requests that keep to it and that do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.e2e.harness import TOKEN, Server, constant, serving, write_version

NAMES = {"model": "m", "version": "2", "label": "stable"}
STREAM_BEGINS_WITH = 5  # events, of a server with one model: start, model, service, workers, traffic


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("fuzzed")
    write_version(directory / "store" / "m", 1, constant(1))
    write_version(directory / "store" / "m", 2, constant(2))
    with serving(directory, wait_ready=True, SERVING_LOG__LEVEL="info") as server:
        yield server


def fuzz(server: Server, examples: int) -> Counter[str]:
    """Send `examples` requests of each mode to every operation and return how often each status came."""
    import schemathesis  # here, because every worker of the suite imports this file: it takes two seconds
    from schemathesis.specs.openapi import checks

    # that everything which fits the document is accepted is not promised: it cannot say what rows a model takes
    promises = [
        schemathesis.checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]
    schema = schemathesis.openapi.from_url(server.url + "/openapi.json")
    schema.config.max_stream_events = STREAM_BEGINS_WITH  # or each stream would be read for ten or twenty seconds
    schema = schema.exclude(path_regex="/unload$")  # nothing would answer any more
    seen: Counter[str] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        _fuzz_one(server, operation, schemathesis.GenerationMode.POSITIVE, examples, promises, seen)
        if [*operation.query, *operation.headers, *operation.body]:  # without, nothing can be asked wrongly: paths fit
            _fuzz_one(server, operation, schemathesis.GenerationMode.NEGATIVE, examples, promises, seen)
    return seen


def _fuzz_one(
    server: Server, operation: Any, mode: Any, examples: int, promises: list[Any], seen: Counter[str]
) -> None:
    @given(case=operation.as_strategy(mode), names_exist=st.booleans(), is_operator=st.booleans())
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Any, names_exist: bool, is_operator: bool) -> None:
        if names_exist:  # names made up lead to 404 and no further
            case.path_parameters = {name: NAMES[name] for name in case.path_parameters or {}}
        headers = {"Authorization": f"Bearer {TOKEN}"} if is_operator else {}
        response = case.call(base_url=server.url, headers=headers)
        seen[f"{operation.label} {response.status_code}"] += 1
        case.validate_response(response, checks=promises)

    send()


def assert_keeps_its_promises(server: Server, examples: int) -> None:
    seen = fuzz(server, examples)
    print(f"{seen.total()} requests: {dict(seen)}")
    labels = {label.rpartition(" ")[0] for label in seen}
    assert len(labels) > 12
    assert seen["POST /models/{model}/pin 401"]
    assert seen["POST /models/{model}/predict 422"]
    assert server.predict("m").status_code == 200
    assert server.client.get(server.url + "/health/ready").status_code == 200


def test_every_operation_keeps_the_documents_promises(live: Server) -> None:
    assert_keeps_its_promises(live, 5)


@pytest.mark.soak
def test_every_operation_keeps_the_documents_promises_for_long(live: Server) -> None:
    assert_keeps_its_promises(live, 500)
