"""The settings that processes which share one control have in common."""

from __future__ import annotations

from pathlib import Path

from serving.settings import Settings, describe_differences, dump_shared, make_shared


def test_control_gets_no_token_and_absolute_paths() -> None:
    settings = Settings(
        security={"admin_token": "secret", "read_token_file": "f", "pickle_trusted": ("a.B", "c.D")},
        environments={"named": {"old": {"python": "/opt/python"}}},
    )
    shared = make_shared(settings)
    assert "secret" not in shared.model_dump_json()
    assert shared.security.admin_token is shared.security.read_token_file is None
    assert shared.store.path == Path("model_store").absolute()
    assert Settings.model_validate_json(shared.model_dump_json()) == shared


def test_differences_are_named_and_what_is_each_process_s_own_is_none() -> None:
    one = Settings(store={"settle_seconds": 1.0}, server={"port": 1, "workers": 2}, security={"admin_token": "a"})
    other = Settings(store={"settle_seconds": 2.0}, server={"port": 2, "workers": 2}, log={"level": "debug"})
    ours, theirs = dump_shared(make_shared(one)), dump_shared(make_shared(other))
    assert describe_differences(ours, theirs) == ["store.settle_seconds is 2.0 in this process and 1.0 in the others"]
    assert describe_differences(ours, ours) == []


def test_a_long_value_is_compared_as_a_whole() -> None:
    names = [f"package.Class{number}" for number in range(1000)]
    one, other = (dump_shared(make_shared(Settings(security={"pickle_trusted": (*names, last)}))) for last in "ab")
    (difference,) = describe_differences(one, other)
    assert len(difference) < 1000


def test_what_is_set_for_a_model_is_shared_whole() -> None:
    one, other = (
        make_shared(Settings(rollout={"alpha": 0.02}, models={"iris": {"rollout": {"margin": margin}}}))
        for margin in (2.5, 3.0)
    )
    sent = Settings.model_validate_json(one.model_dump_json())
    assert sent == one
    assert (sent.rollout_of("iris").alpha, sent.rollout_of("iris").margin) == (0.02, 2.5)
    (difference,) = describe_differences(dump_shared(one), dump_shared(other))
    assert difference.startswith("models.iris is ")
