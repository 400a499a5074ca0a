"""docker-compose.yml is a valid Compose file, and gives its containers no more than they need."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft201909Validator

pytestmark = pytest.mark.container

Mounts = dict[str, dict[str, tuple[str, str]]]


def test_it_follows_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    Draft201909Validator(schema).validate(compose)  # named here: its own $schema misspells the draft


def test_docker_compose_accepts_it(root: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode:
        pytest.skip("no docker compose client on this machine")
    command = [docker, "compose", "--file", root / "docker-compose.yml", "config", "--quiet"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", ["serving", "prometheus", "grafana"])
def test_a_container_has_no_privileges(compose: dict[str, Any], service: str) -> None:
    declared = compose["services"][service]
    assert declared["read_only"] is True
    assert declared["cap_drop"] == ["ALL"]
    assert "cap_add" not in declared
    assert "no-new-privileges:true" in declared["security_opt"]
    assert not declared.get("privileged")


def test_serving_does_not_run_as_root(compose: dict[str, Any], dockerfile: list[tuple[str, str]]) -> None:
    users = [argument for instruction, argument in dockerfile if instruction == "USER"]
    assert users == [compose["services"]["serving"]["user"]]
    assert users[0].split(":")[0] not in ("0", "root")


def test_serving_cannot_write_to_the_store(mounts: Mounts, settings_of_the_image: dict[str, str]) -> None:
    assert mounts["serving"][settings_of_the_image["SERVING_STORE__PATH"]] == ("./model_store", "ro")


def test_the_state_outlives_the_container(
    compose: dict[str, Any], mounts: Mounts, settings_of_the_image: dict[str, str]
) -> None:
    volume, mode = mounts["serving"][settings_of_the_image["SERVING_STATE__PATH"]]
    assert volume in compose["volumes"]
    assert mode == "rw"


def test_ports_are_open_to_this_machine_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service["ports"]]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_serving_is_reachable_inside_its_network(
    compose: dict[str, Any], dockerfile: list[tuple[str, str]], settings_of_the_image: dict[str, str]
) -> None:
    port = settings_of_the_image["SERVING_SERVER__PORT"]
    assert settings_of_the_image["SERVING_SERVER__HOST"] == "0.0.0.0"
    assert ("EXPOSE", port) in dockerfile
    assert compose["services"]["serving"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_a_stop_is_given_the_time_it_needs_to_drain(root: Path, compose: dict[str, Any]) -> None:
    server = tomllib.loads((root / "settings.toml").read_text())["server"]
    grace = compose["services"]["serving"]["stop_grace_period"]
    assert grace.endswith("s")
    assert int(grace.removesuffix("s")) > server["drain_seconds"] + server.get("lame_duck_seconds", 0)


def test_images_are_pinned(compose: dict[str, Any], dockerfile: list[tuple[str, str]]) -> None:
    images = [compose["services"][service]["image"] for service in ("prometheus", "grafana")]
    images += [argument.split()[0] for instruction, argument in dockerfile if instruction == "FROM"]
    for image in images:
        _, _, tag = image.partition(":")
        assert any(character.isdigit() for character in tag), image


def test_prometheus_scrapes_the_serving_container(
    compose: dict[str, Any], prometheus_file: Path, settings_of_the_image: dict[str, str]
) -> None:
    (job,) = yaml.safe_load(prometheus_file.read_text())["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    (target,) = job["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert host in compose["services"]
    assert port == settings_of_the_image["SERVING_SERVER__PORT"]


def test_the_image_for_sagemaker_is_built_on_the_one_that_compose_builds(compose: dict[str, Any], root: Path) -> None:
    page = (root / "docs" / "protocols.md").read_text()
    assert f"FROM {compose['services']['serving']['image']}\n" in page


def test_prometheus_finds_the_rules_that_its_configuration_names(
    compose: dict[str, Any], mounts: Mounts, prometheus_file: Path, root: Path
) -> None:
    for name in yaml.safe_load(prometheus_file.read_text())["rule_files"]:
        source, mode = mounts["prometheus"][f"/etc/prometheus/{name}"]
        assert mode == "ro"
        assert (root / source) == prometheus_file.parent / name


def test_grafana_finds_prometheus_and_the_dashboard(compose: dict[str, Any], mounts: Mounts, root: Path) -> None:
    provisioning = root / mounts["grafana"]["/etc/grafana/provisioning"][0]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert compose["services"][host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "serving.yml").read_text())["providers"]
    directory, mode = mounts["grafana"][provider["options"]["path"]]
    assert mode == "ro"
    assert [path.name for path in (root / directory).iterdir()] == ["serving.json"]
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/serving.json"


def test_nobody_can_change_grafana_by_a_known_password(compose: dict[str, Any]) -> None:
    """It would begin with the user admin, and the password admin."""
    settings = compose["services"]["grafana"]["environment"]
    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert settings["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert settings["GF_AUTH_BASIC_ENABLED"] == "false"
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
