"""The Compose files: right by the specification, whole in themselves, and true of the program and its image."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from deployment import DEPLOY, DOCKERFILE, ENDING_S, ROOT, SECRETS, TOKEN_VARIABLE, check, image_variables
from postgres import PROGRAMS
from unit.conftest import Command
from yarl import URL

from watcher.config.files import DEFAULTS, STORE_VARIABLE, SYSTEM_PLACE, VARIABLE
from watcher.runtime.units import parse_duration

SCHEMA = json.loads((ROOT / "tests/fixtures/compose-spec/compose-spec.json").read_text(encoding="utf-8"))
FILES: dict[str, dict[str, Any]] = {
    file.name: yaml.safe_load(file.read_text(encoding="utf-8")) for file in DEPLOY.glob("compose*.yaml")
}
POSTGRES = FILES["compose.postgres.yaml"]["services"]["postgres"]

each = pytest.mark.parametrize("file", FILES)


def watcher_of(file: str) -> dict[str, Any]:
    service: dict[str, Any] = FILES[file]["services"]["watcher"]
    return service


def config_of(file: str) -> Path:
    """Return what the first volume brings to where the program looks."""
    mount: str = watcher_of(file)["volumes"][0]
    source, target, mode = mount.split(":")
    assert (Path(target) / "watcher.yaml", mode) == (SYSTEM_PLACE, "ro")
    assert image_variables()[VARIABLE] == target  # so other files beside it are read, too
    return DEPLOY / source / "watcher.yaml"


@each
def test_what_the_services_use_is_defined_and_nothing_else(file: str) -> None:
    services = FILES[file]["services"].values()
    mounted = {volume.partition(":")[0] for service in services for volume in service["volumes"]}
    assert {name for name in mounted if not name.startswith(".")} == set(FILES[file]["volumes"])
    used = {name for service in services for name in service["secrets"]}
    assert {name: {"file": f"./secrets/{name}"} for name in used} == FILES[file]["secrets"]
    assert {"deploy/secrets/", "deploy/.env"} <= {*(ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()}
    read = re.findall(r"_file: \S*/run/secrets\}?/(\w+)", config_of(file).read_text(encoding="utf-8"))
    assert read == watcher_of(file)["secrets"]
    assert set(read) <= set(SECRETS)


@each
def test_the_program_accepts_the_configuration_that_is_mounted(file: str, tmp_path: Path, command: Command) -> None:
    check(config_of(file), tmp_path, watcher_of(file)["environment"] | {TOKEN_VARIABLE: "t" * 32}, command)


@each
def test_the_variables_that_are_set_are_read_and_the_token_comes_from_whoever_starts_it(file: str) -> None:
    environ = watcher_of(file)["environment"]
    assert set(environ) <= {*DEFAULTS, VARIABLE, TOKEN_VARIABLE}
    document = yaml.safe_load(config_of(file).read_text(encoding="utf-8"))
    assert document["http"] == {"token": f"${{{TOKEN_VARIABLE}:-}}"}
    assert environ[TOKEN_VARIABLE] == document["http"]["token"]


HEALTH_KEYS = ("interval", "timeout", "start_period", "start_interval", "retries")


@each
def test_a_file_is_as_its_specification_asks_and_kills_nobody_while_draining(file: str) -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(FILES[file])
    assert parse_duration(watcher_of(file)["stop_grace_period"]) > ENDING_S
    image = re.search(
        r"^HEALTHCHECK --interval=(\S+) --timeout=(\S+) --start-period=(\S+) --start-interval=(\S+) --retries=(\S+) "
        r"CMD (\[.*\])$",
        DOCKERFILE,
        re.MULTILINE,
    )
    asked = watcher_of(file)["healthcheck"]
    assert image
    assert yaml.safe_load(image[6]) == asked["test"][1:]
    assert (image[1], image[4]) == ("30s", "2s")  # a check is a process; it must be seen soon that it has started
    assert list(image.groups()[:5]) == [str(asked[key]) for key in HEALTH_KEYS]
    for name, service in FILES[file]["services"].items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert name == "watcher" or service["user"] == "postgres"


def test_state_is_on_a_volume_and_each_replica_has_a_port() -> None:
    assert watcher_of("compose.yaml")["volumes"][1] == "state:/var/lib/watcher"
    watcher = watcher_of("compose.postgres.yaml")
    (port,) = watcher["ports"]
    first, last = map(int, re.findall(r"\d{4}", port.rpartition(":")[0]))
    assert last - first + 1 == watcher["deploy"]["replicas"] == 3
    assert f"EXPOSE {port.rpartition(':')[2]}\n" in DOCKERFILE


def test_the_server_is_of_the_version_that_is_tested_and_its_volume_where_that_one_keeps_its_files() -> None:
    tested = re.search(
        r"^Tested with version (\d+)\.", (ROOT / "docs/store.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert tested
    assert f"pginstall{tested[1]}" == PROGRAMS
    assert POSTGRES["image"] == f"postgres:{tested[1]}"
    assert POSTGRES["volumes"] == ["database:/var/lib/postgresql"]  # up to 17 it was its directory data


def test_the_watcher_waits_for_the_database_it_asks_with_its_password() -> None:
    watcher, environ = watcher_of("compose.postgres.yaml"), POSTGRES["environment"]
    url = URL(watcher["environment"][STORE_VARIABLE])
    assert (url.host, url.user, url.path) == ("postgres", environ["POSTGRES_USER"], f"/{environ['POSTGRES_DB']}")
    config = yaml.safe_load(config_of("compose.postgres.yaml").read_text(encoding="utf-8"))
    assert config["store"] == {"password_file": environ["POSTGRES_PASSWORD_FILE"]}
    assert Path(environ["POSTGRES_PASSWORD_FILE"]).name in POSTGRES["secrets"]
    watcher, asked = watcher_of("compose.postgres.yaml"), POSTGRES["healthcheck"]["test"]
    assert watcher["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert asked[:2] == ["CMD", "pg_isready"]
    assert "--host=127.0.0.1" in asked  # while it sets itself up, it answers on its socket alone
