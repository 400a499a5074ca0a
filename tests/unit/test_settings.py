"""Settings come from flags, environment, file and defaults, in this order; what cannot be used is said in one line."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serving.settings import (
    SecuritySettings,
    Settings,
    SettingsError,
    TokenScope,
    forget_tokens,
    load_settings,
    load_token,
    read_digests,
)

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def empty_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("SERVING_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str, name: str = "settings.toml") -> Path:
        (tmp_path / name).write_text(text)
        return Path(name)

    return write_file


def problems(**sources: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(**sources)
    return str(caught.value).splitlines()


# --- precedence -------------------------------------------------------------------------------------------------------


def test_sagemaker_names_the_port_and_the_store(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[server]\nhost = "127.0.0.1"\nport = 1')
    monkeypatch.setenv("SERVING_SERVER__PORT", "8000")  # as images have it
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", "8081")
    found = load_settings()
    assert (found.server.host, found.server.port) == ("0.0.0.0", 8081)
    assert str(found.store.path) == "/opt/ml/model"
    assert load_settings({"server.port": 9}).server.port == 9
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", "many")
    assert problems()[0].startswith("environment: SAGEMAKER_BIND_TO_PORT: ")


def test_without_file_flags_and_environment_the_defaults_hold() -> None:
    assert load_settings() == Settings()


def test_flags_beat_environment_beats_file_beats_defaults(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[server]\nhost = "file"\nport = 1\nmax_rows = 1\n')
    monkeypatch.setenv("SERVING_SERVER__HOST", "environment")
    monkeypatch.setenv("SERVING_SERVER__PORT", "2")
    server = load_settings({"server.host": "flag"}).server
    assert (server.host, server.port, server.max_rows, server.max_queue) == ("flag", 2, 1, 256)


def test_flags_that_were_not_given_do_not_count(write: Write) -> None:
    write("[server]\nport = 1\n")
    assert load_settings({"server.port": None}).server.port == 1


def test_the_same_holds_in_a_fresh_process(write: Write, tmp_path: Path) -> None:
    write('[store]\npath = "from-file"\nwatch = "poll"\n[log]\nlevel = "debug"\n')
    code = "from serving.settings import load_settings as l; s = l(); print(s.store.path, s.store.watch, s.log.level)"
    environment = {**os.environ, "SERVING_STORE__PATH": "from-env", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "from-env poll debug\n"


def test_the_variable_names_another_file_and_the_flag_beats_it(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("[server]\nport = 1\n")
    monkeypatch.setenv("SERVING_SETTINGS", str(write("[server]\nport = 2\n", "two.toml")))
    assert load_settings().server.port == 2
    assert load_settings(file=write("[server]\nport = 3\n", "three.toml")).server.port == 3


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_SECURITY__ADMIN_TOKEN", "")
    monkeypatch.setenv("SERVING_SETTINGS", "")
    assert load_settings().security.admin_token is None


@pytest.mark.parametrize(
    ("text", "patterns"),
    [("*.bak", ("*.bak",)), ("*.bak, old-*", ("*.bak", "old-*")), ('["a,b", "c"]', ("a,b", "c")), (",", ())],
)
def test_a_list_in_the_environment_is_json_or_separated_by_commas(
    text: str, patterns: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVING_STORE__IGNORE", text)
    assert load_settings().store.ignore == patterns


def test_relative_paths_stay_as_given(write: Write, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    file = write('[store]\npath = "models"\n', "conf/s.toml")
    assert load_settings(file=file).store.path == Path("models")


def test_settings_cannot_be_changed() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.server.port = 1
    with pytest.raises(ValidationError, match="frozen"):
        settings.server = Settings().server


def test_variables_that_only_look_like_ours_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_IMAGE", "registry/serving:1")
    monkeypatch.setenv("SERVING_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("SERVING_SERVER_PORT", "tcp://10.0.0.1:8000")
    assert load_settings() == Settings()


def test_the_settings_file_of_the_project_holds_the_defaults() -> None:
    file = Path(__file__).parents[2] / "settings.toml"
    assert load_settings(file=file) == Settings()


# --- environments by name ---------------------------------------------------------------------------------------------


def test_environments_have_names_of_the_users_choice(write: Write) -> None:
    write('[environments]\nidle_seconds = 5\n[environments.sk13]\npython = "a"\n[environments."sk1.4"]\npython = "b"\n')
    found = load_settings().environments
    assert {name: str(each.python) for name, each in found.named.items()} == {"sk13": "a", "sk1.4": "b"}
    assert (found.path, found.idle_seconds) == (None, 5)


def test_a_variable_sets_one_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[environments]\npath = "p"\n[environments.SK13]\npython = "a"\n[environments.other]\npython = "b"\n')
    monkeypatch.setenv("SERVING_ENVIRONMENTS__SK13__PYTHON", "from-variable")
    monkeypatch.setenv("SERVING_ENVIRONMENTS__NEW_ONE__PYTHON", "new")
    monkeypatch.setenv("SERVING_ENVIRONMENTS__EMPTY__PYTHON", "")
    monkeypatch.setenv("SERVING_ENVIRONMENTS__PATH", "q")
    found = load_settings().environments
    assert {name: str(each.python) for name, each in found.named.items()} == {
        "SK13": "from-variable",
        "other": "b",
        "new_one": "new",
    }
    assert found.path == Path("q")


def test_each_problem_of_environments_is_told_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[environments.a]\npyhton = "x"\n[environments.own]\nq = 1\n[environments.b]\n')
    monkeypatch.setenv("SERVING_ENVIRONMENTS__C__PYTON", "x")
    assert [line.split(";")[0] for line in problems()] == [
        "settings.toml: environments.a.pyhton: no such setting",
        "settings.toml: environments.own.q: 'own' is a reserved word",
        "settings.toml: environments.own.q: no such setting",
        "settings.toml: environments.b: is empty",
        "environment: SERVING_ENVIRONMENTS__C__PYTON: no such setting",
    ]


# --- models by name ---------------------------------------------------------------------------------------------------


def test_a_model_has_its_own_rollout_and_the_rest_of_the_general_one(write: Write) -> None:
    write(
        '[rollout]\nalpha = 0.02\nsteps = [1]\n[models.iris.rollout]\nstrategy = "canary"\nsteps = [20, 50]\n'
        "[models.wine]\n[models.empty.rollout]\n"
    )
    found = load_settings()
    iris = found.rollout_of("iris")
    assert (iris.strategy, iris.steps, iris.alpha) == ("canary", (20, 50), 0.02)
    for other in ("wine", "empty", "unknown"):
        assert found.rollout_of(other) == found.rollout
    assert found.rollout.steps == (1,)


def test_variables_set_fields_of_a_model_beside_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[rollout]\nalpha = 0.02\n[models.Iris.rollout]\nsteps = [1]\nstrategy = "shadow"\n')
    monkeypatch.setenv("SERVING_MODELS__IRIS__ROLLOUT__STEPS", "20,50")
    monkeypatch.setenv("SERVING_MODELS__A__B__ROLLOUT__MARGIN", "3")
    monkeypatch.setenv("SERVING_MODELS__A__B__ROLLOUT__SLO_SECONDS", "")
    monkeypatch.setenv("SERVING_ROLLOUT__TOLERANCE", "0.5")
    found = load_settings()
    assert set(found.models) == {"Iris", "a__b"}
    iris = found.rollout_of("Iris")
    assert (iris.strategy, iris.steps, iris.alpha, iris.tolerance) == ("shadow", (20, 50), 0.02, 0.5)
    assert (found.rollout_of("a__b").margin, found.rollout_of("a__b").tolerance) == (3, 0.5)


def test_a_variable_is_for_the_model_of_that_name_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_MODELS__IRIS__ROLLOUT__STRATEGY", "canary")
    found = load_settings()
    assert found.rollout_of("Iris").strategy == found.rollout_of("iris").strategy == "canary"
    assert found.rollout_of("other").strategy == "swap"


def test_a_model_and_an_environment_of_one_name_are_two(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[environments.IRIS]\npython = "a"\n[models.iRIS.rollout]\nalpha = 0.1\n')
    monkeypatch.setenv("SERVING_MODELS__IRIS__ROLLOUT__STRATEGY", "canary")
    monkeypatch.setenv("SERVING_ENVIRONMENTS__IRIS__PYTHON", "b")
    found = load_settings()
    assert (set(found.models), set(found.environments.named)) == ({"iRIS"}, {"IRIS"})


def test_each_problem_of_models_is_told_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("[rollout]\nalpha = 7\n[models.a.rollout]\nsteps = [5, 3]\n[models.b.rolout]\nsteps = [1]\n")
    monkeypatch.setenv("SERVING_MODELS__A__ROLLOUT__STRATEGY", "canari")
    monkeypatch.setenv("SERVING_MODELS__C__ROLLOUT__STEPS", "20,100")
    assert [line.split(" (")[0] for line in problems()] == [
        "settings.toml: rollout.alpha: 7 should be less than 0.5",
        "environment: SERVING_MODELS__A__ROLLOUT__STRATEGY: 'canari' should be 'swap', 'shadow' or 'canary'",
        "settings.toml: models.a.rollout.steps: [5, 3] should hold one share or more, each larger than the one before",
        "settings.toml: models.b.rolout.steps: no such setting; did you mean models.b.rollout.steps?",
        "environment: SERVING_MODELS__C__ROLLOUT__STEPS: '20,100' should be less than 100",
    ]


# --- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[store]\npaht = "x"', "store.paht: no such setting; did you mean store.path?"),
        ('[stoer]\npath = "x"', "stoer: no such setting; did you mean store?"),
        ("port = 1", "port: no such setting; did you mean server.port?"),
        ("[store]\nport = 1", "store.port: no such setting; did you mean server.port?"),
        ("[log]\nzzz = 1", "log.zzz: no such setting; log has format, level, access_sample"),
        ("[zzz]", "zzz: no such setting; the groups are server, store, state, candidate, gates, engine, environ"),
        ("server = 1", "server: a group is set field by field, such as server.host"),
        ('[server]\nport = "eighty"', "server.port: 'eighty' should be a valid integer (port to listen on; 0 takes"),
        ("[server]\nport = 65536", "server.port: 65536 should be less than or equal to 65535 (port to"),
        ("[server]\ndrain_seconds = nan", "server.drain_seconds: nan should be a finite number (how long"),
        ("[candidate]\ntimeout_seconds = 0", "candidate.timeout_seconds: 0 should be greater than 0 (deadline"),
        ('[store]\nwatch = "evnts"', "store.watch: 'evnts' should be 'auto', 'events' or 'poll' (how changes"),
        ("[store]\nignore = [1]", "store.ignore: [1] should be a valid string (glob patterns"),
        ("[security]\nadmin_token = 4711", "security.admin_token: the value should be a valid string (token of"),
        (
            '[security]\ntrusted_keys = ["ed25519:AAAA"]',
            "security.trusted_keys: ['ed25519:AAAA'] should hold public keys as 'serving keygen' prints them: the ",
        ),
        ('[security]\ntrusted_keys = ["k.pub"]', "security.trusted_keys: ['k.pub'] should hold public keys as"),
        ("[environments.sk13]", "environments.sk13: is empty; it needs python, such as environments.sk13.python"),
        (
            '[environments.sk13]\npyhton = "p"',
            "environments.sk13.pyhton: no such setting; did you mean environments.sk13.p",
        ),
        (
            '[environments."sk1.3"]\nx = 1',
            "environments.sk1.3.x: no such setting; did you mean environments.sk1.3.python?",
        ),
        ("[environments.sk13]\npython = 1", "environments.sk13.python: 1 is not a valid path (the interpreter of this"),
        ('[environments.own]\npython = "p"', "environments.own.python: 'own' is a reserved word; choose another name"),
        ('[environments."a b"]\npython = "p"', "environments.a b.python: 'a b' is not a name: use letters, digits"),
        ('[environments]\nsk13 = "p"', "environments.sk13: no such setting; did you mean environments.sk13.python?"),
        ('[environments]\npaht = "p"', "environments.paht: no such setting; did you mean environments.path?"),
        (
            "[environments]\nidle_seconds = -1",
            "environments.idle_seconds: -1 should be greater than or equal to 0 (how",
        ),
        ("models = 1", "models: a group is set field by field, such as models.<name>.rollout.strategy"),
        ("[models]\niris = 1", "models.iris: no such setting; did you mean models.iris.rollout.strategy?"),
        ("[models.iris]\nsteps = [1]", "models.iris.steps: no such setting; did you mean models.iris.rollout.steps?"),
        ("[models.iris]\nrollout = 1", "models.iris.rollout: no such setting; did you mean models.iris.rollout.st"),
        ("[models.iris.rollout]\nstps = [1]", "models.iris.rollout.stps: no such setting; did you mean models.iris.r"),
        ("[models.iris.rollout]\nsteps = []", "models.iris.rollout.steps: [] should hold one share or more, each l"),
        ("[models.active.rollout]\nalpha = 0.1", "models.active.rollout.alpha: no model is called that: 'active' is"),
        ('[rollout]\nsticky = "cookie:a"', "rollout.sticky: 'cookie:a' should be header:NAME or field"),
        ("[rollout]\nsteps = [50, 50]", "rollout.steps: [50, 50] should hold one share or more, each larger than"),
        ('environments = "p"', "environments: a group is set field by field, such as environments.path"),
        ("[server]\nport =", "is not TOML: Invalid value (at "),
        ("a = 1\n[server]\nport = 1\nport = 2", "is not TOML: Cannot overwrite a value (at line 4, the last one)"),
    ],
)
def test_a_problem_in_the_file_is_one_line_with_its_path(text: str, line: str, write: Write) -> None:
    write(text)
    (seen,) = problems()
    assert seen.startswith(f"settings.toml: {line}")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("SERVING_STORE__PAHT", "x", "no such setting; did you mean SERVING_STORE__PATH?"),
        (
            "SERVING_STOER__PATH",
            "x",
            "no such setting; did you mean SERVING_STORE__PATH or SERVING_STATE__PATH or SERV",
        ),
        ("SERVING_ZZZ__ZZZ", "x", "no such setting; the groups are server,"),
        ("SERVING_STORE_PATH", "x", "no such setting; did you mean SERVING_STORE__PATH?"),
        ("SERVING_LOG", "debug", "a group is set field by field, such as SERVING_LOG__FORMAT"),
        ("SERVING_LOG", '{"level": "debug"}', "a group is set field by field, such as SERVING_LOG__FORMAT"),
        ("SERVING_ENVIRONMENTS__SK13", "p", "no such setting; did you mean SERVING_ENVIRONMENTS__SK13__PYTHON?"),
        ("SERVING_ENVIRONMENTS__PAHT", "p", "no such setting; did you mean SERVING_ENVIRONMENTS__PATH?"),
        ("SERVING_ENVIRONMENTS__SK13__PYTON", "p", "no such setting; did you mean SERVING_ENVIRONMENTS__SK13__PYTHON?"),
        ("SERVING_ENVIRONMENTS__NAMED", "p", "no such setting; did you mean SERVING_ENVIRONMENTS__NAMED__PYTHON?"),
        ("SERVING_ENVIRONMENTS__OWN__PYTHON", "p", "'own' is a reserved word; choose another name"),
        ("SERVING_ENVIRONMENTS", "p", "a group is set field by field, such as SERVING_ENVIRONMENTS__PATH"),
        ("SERVING_ENVIRONMENT__SK13__PYTHON", "p", "no such setting; did you mean SERVING_ENVIRONMENTS?"),
        ("SERVING_MODELS", "p", "a group is set field by field, such as SERVING_MODELS__<NAME>__ROLLOUT__STRATEGY"),
        ("SERVING_MODELS__IRIS", "p", "no such setting; did you mean SERVING_MODELS__IRIS__ROLLOUT__STRATEGY?"),
        ("SERVING_MODELS__IRIS__STEPS", "1", "no such setting; did you mean SERVING_MODELS__IRIS__ROLLOUT__STEPS?"),
        ("SERVING_MODELS__IRIS__ROLLOUT__STPS", "1", "no such setting; did you mean SERVING_MODELS__IRIS__ROLLOUT__ST"),
        ("SERVING_MODELS__IRIS__ROLLOUT__STEPS", "20,x", "'20,x' should be a valid number (shares of requests"),
        ("SERVING_SERVER__PORT", "eighty", "'eighty' should be a valid integer (port"),
        ("SERVING_SERVER__FAIL_FAST", "perhaps", "'perhaps' should be a valid boolean (exit"),
        ("SERVING_STORE__IGNORE", "[a", "'[a' should be a valid tuple (glob"),
    ],
)
def test_a_problem_in_the_environment_is_one_line_with_the_variable(
    name: str, value: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    (seen,) = problems()
    assert seen.startswith(f"environment: {name}: {line}")


def test_a_problem_on_the_command_line_says_so() -> None:
    (seen,) = problems(flags={"store.watch": "evnts"})
    assert seen == "command line: store.watch: 'evnts' should be 'auto', 'events' or 'poll' (how changes are noticed)"


def test_all_problems_are_told_at_once_each_with_its_source(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[stoer]\npath = "x"\n[log]\nlevel = "loud"\n')
    monkeypatch.setenv("SERVING_SERVER__PORT", "-1")
    monkeypatch.setenv("SERVING_GATE__A", "1")
    monkeypatch.setenv("SERVING_GATE__B", "1")
    found = problems(flags={"store.keep_warm": -1})
    assert [line.partition(": no such")[0].partition(" should")[0] for line in sorted(found)] == [
        "command line: store.keep_warm: -1",
        "environment: SERVING_GATE__A",
        "environment: SERVING_GATE__B",
        "environment: SERVING_SERVER__PORT: '-1'",
        "settings.toml: log.level: 'loud'",
        "settings.toml: stoer",
    ]


def test_a_value_that_is_overridden_is_not_a_problem(write: Write) -> None:
    write('[server]\nport = "eighty"\n')
    assert load_settings({"server.port": 80}).server.port == 80


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(file=Path("a.toml")) == ["a.toml: no such settings file (named by --settings)"]
    monkeypatch.setenv("SERVING_SETTINGS", "b.toml")
    assert problems() == ["b.toml: no such settings file (named by SERVING_SETTINGS)"]


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").mkdir()
    assert problems() == ["settings.toml: cannot be read: Is a directory"]
    (tmp_path / "settings.toml").rmdir()
    (tmp_path / "settings.toml").write_bytes(b"[server]\nhost = '\xff'")
    assert problems() == ["settings.toml: is not UTF-8 (byte 17)"]


@pytest.mark.parametrize("name", ["SERVING_SECURITY__ADMIN_TOEKN", "SERVING_SECURITY", "SERVING_SECURITY_ADMIN_TOKEN"])
def test_a_misspelt_secret_is_not_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "hush-hush")
    assert "hush" not in "".join(problems())


# --- tokens -----------------------------------------------------------------------------------------------------------


def digests(**security: Any) -> tuple[bytes, ...]:
    return read_digests(SecuritySettings(**security))[TokenScope.ADMIN]


def sha256(*tokens: str) -> tuple[bytes, ...]:
    return tuple(hashlib.sha256(token.encode()).digest() for token in tokens)


def test_tokens_come_from_the_setting_or_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("# the old one until May\n first\r\n\nsecond\n  # not-this-one\n")
    assert digests() == ()
    assert digests(admin_token=" from-setting\n") == sha256("from-setting")
    assert digests(admin_token_file=tmp_path / "token") == sha256("first", "second")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "cannot read token: No such file or directory"),
        (b"", "token: is empty; put a token there or remove the setting"),
        (b" \n# hush\n", "token: is empty; put a token there or remove the setting"),
        (b"hush hush", "token: a token is one line of ASCII without spaces"),
        (b"fine\nhush hush", "token: a token is one line of ASCII without spaces"),
        ("hüsh".encode(), "token: a token is one line of ASCII without spaces"),
        (b"\xff\xfe", "token: a token is one line of ASCII without spaces"),
        (b"h" * 70_000, "token holds no tokens: it is longer than 65536 bytes"),
        (b"hush\n" * 101, "token: has 101 tokens, at most 100 are taken"),
    ],
)
def test_a_token_file_that_holds_no_tokens_is_an_error(content: bytes | None, line: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        digests(admin_token_file=Path("token"))
    assert str(caught.value) == f"security.admin_token_file: {line}"


@pytest.mark.parametrize("scope", list(TokenScope))
def test_a_token_that_is_none_is_refused_without_being_shown(scope: TokenScope) -> None:
    for token, why in (("hush hush", "be one line of ASCII without spaces"), (" ", "not be empty; put a token there")):
        (seen,) = problems(flags={f"security.{scope}_token": token})
        assert seen.startswith(f"command line: security.{scope}_token: the value should {why}")
        assert "hush" not in seen


def test_a_token_and_a_file_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="admin_token and admin_token_file are both set"):
        digests(admin_token="a", admin_token_file=Path("token"))
    monkeypatch.setenv("SERVING_SECURITY__READ_TOKEN", "a")
    monkeypatch.setenv("SERVING_SECURITY__READ_TOKEN_FILE", "b")
    with pytest.raises(SettingsError, match="read_token and read_token_file are both set"):
        load_token(TokenScope.READ)


def test_settings_do_not_hold_a_token_in_any_form_that_could_be_read_back() -> None:
    settings = load_settings({"security.admin_token": "hush"})
    everything = [repr(settings), settings.model_dump_json(), repr(settings.model_dump()), str(pickle.dumps(settings))]
    assert "hush" not in "".join(everything)
    assert settings == load_settings({"security.admin_token": "hush"})
    assert settings != load_settings({"security.admin_token": "other"})


def test_a_client_is_given_the_token_as_it_is(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_token(TokenScope.READ) is None
    write("one\ntwo\n", "tokens")
    write('[security]\nread_token_file = "tokens"\npredict_token = "from-file"')
    assert load_token(TokenScope.READ) == "one"
    monkeypatch.setenv("SERVING_SECURITY__PREDICT_TOKEN", "from-environment")
    assert load_token(TokenScope.PREDICT) == "from-environment"
    assert load_token(TokenScope.ADMIN) is None


def test_a_server_forgets_the_tokens_of_its_environment_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVING_SECURITY__ADMIN_TOKEN", "serving_security__predict_token", "SERVING_SECURITY__READ_TOKEN"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("SERVING_SECURITY__READ_TOKEN_FILE", "a-path")
    forget_tokens()
    assert "hush" not in os.environ.values()
    assert os.environ["SERVING_SECURITY__READ_TOKEN_FILE"] == "a-path"
