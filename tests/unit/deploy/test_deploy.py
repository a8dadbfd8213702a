"""What deploy/ and the Dockerfile promise about the program: its variables, its paths, its ending, its health."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from watcher.config.loader import load_config
from watcher.config.locate import DEFAULTS, PLACES, VARIABLE
from watcher.daemon.supervisor import DRAIN_S, FLUSH_S
from watcher.runtime.units import parse_duration

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = (ROOT / "deploy" / "systemd" / "clerk-watcher.service").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
SERVICE: dict[str, Any] = COMPOSE["services"]["watcher"]
CONFIG = ROOT / "deploy" / "config" / "watcher.yaml"

SECRETS = {"clerk_api_key": "k", "ops_webhook_secret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"}
ENDING_S = 8.0
"""A drain takes no longer (SPEC 6)."""


def unit(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)


def variables() -> dict[str, set[str]]:
    image = re.search(r"^ENV ((?:.*\\\n)*.*)", DOCKERFILE, re.MULTILINE)
    return {
        "Dockerfile": set(re.findall(r"(\w+)=", image[1] if image else "")),
        "compose": set(SERVICE["environment"]),
        "systemd": {value.partition("=")[0] for value in unit("Environment")},
    }


@pytest.mark.parametrize("place", ["Dockerfile", "compose", "systemd"])
def test_the_variables_that_are_set_are_read(place: str) -> None:
    ours = {name for name in variables()[place] if name != "PATH" and not name.startswith("PYTHON")}
    assert ours
    assert ours <= {*DEFAULTS, VARIABLE}


@pytest.mark.parametrize("directory", ["/run/secrets", "the credentials"])
def test_the_configuration_loads_with_the_secrets_of_either(directory: str, tmp_path: Path) -> None:
    for name, value in SECRETS.items():
        (tmp_path / name).write_text(f"{value}\n")
    copy = tmp_path / CONFIG.name
    copy.write_text(CONFIG.read_text().replace("/run/secrets", str(tmp_path)))
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)} if directory == "the credentials" else {}
    assert load_config(copy, environ=environ).accounts["default"].api_key.get_secret_value() == "k"


def test_whoever_puts_their_pipeline_in_watches_all_of_it() -> None:
    (watch,) = yaml.safe_load(CONFIG.read_text())["watch"]
    assert set(watch) == {"pipeline"}


def test_the_configuration_leaves_to_the_image_and_the_unit_what_they_set() -> None:
    assert {key[0] for key in DEFAULTS.values()}.isdisjoint(yaml.safe_load(CONFIG.read_text()))


def test_the_secrets_that_are_mounted_are_those_the_configuration_reads() -> None:
    read = set(re.findall(r"/run/secrets}/(\w+)", CONFIG.read_text()))
    assert read == set(SERVICE["secrets"]) == set(COMPOSE["secrets"]) == set(SECRETS)
    assert {value.partition(":")[0] for value in unit("LoadCredential")} == read


def test_the_configuration_is_where_the_program_looks() -> None:
    directory, _, mode = SERVICE["volumes"][0].partition(":")[2].partition(":")
    assert (Path(directory) / CONFIG.name, mode) == (PLACES[1], "ro")
    assert unit("ExecStart")[0].endswith(f"run --config {PLACES[1]}")
    assert (ROOT / "deploy" / SERVICE["volumes"][0].partition(":")[0]).resolve() == CONFIG.parent


def test_nobody_is_killed_while_draining() -> None:
    assert DRAIN_S + FLUSH_S < ENDING_S
    assert parse_duration(SERVICE["stop_grace_period"]) > ENDING_S
    assert parse_duration(unit("TimeoutStopSec")[0]) > ENDING_S


def test_state_is_kept_where_the_volume_is() -> None:
    url = "sqlite:////var/lib/watcher/watcher.db"
    assert "VOLUME /var/lib/watcher\n" in DOCKERFILE
    assert f"WATCHER_STORE_URL={url}" in DOCKERFILE
    assert f"WATCHER_STORE_URL={url}" in unit("Environment")
    assert SERVICE["volumes"][1].partition(":")[2] == "/var/lib/watcher" == unit("WorkingDirectory")[0]


def test_the_container_is_asked_for_its_health_as_the_image_says() -> None:
    image = re.search(
        r"^HEALTHCHECK --interval=(\S+) --timeout=(\S+) --start-period=(\S+) --retries=(\S+) CMD (\[.*\])$",
        DOCKERFILE,
        re.MULTILINE,
    )
    asked = SERVICE["healthcheck"]
    assert image
    assert yaml.safe_load(image[5]) == asked["test"][1:]
    assert list(image.groups()[:4]) == [str(asked[key]) for key in ("interval", "timeout", "start_period", "retries")]


def test_nothing_runs_as_root_or_writes_beside_its_state() -> None:
    assert "USER 65532:65532\n" in DOCKERFILE
    assert (SERVICE["read_only"], SERVICE["cap_drop"]) == (True, ["ALL"])
    assert (unit("DynamicUser"), unit("ProtectSystem")) == (["yes"], ["strict"])


def test_ci_runs_what_a_change_must_pass_on_every_version_that_is_named() -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["test"]
    install, run = (step["run"] for step in job["steps"] if "run" in step)
    assert install.endswith("apt-get install -qq --no-install-recommends prometheus-alertmanager")  # needs root
    assert run == ".ci/run"
    assert "prometheus-alertmanager" in (ROOT / run).read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci/run", os.X_OK)
    named = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert job["strategy"]["matrix"]["python"] == named


def test_the_hooks_before_a_commit_fetch_nothing() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert {(hook["language"], hook["entry"].partition(" ")[0]) for hook in repository["hooks"]} == {
        ("system", ".venv/bin/ruff"),
        ("system", ".venv/bin/mypy"),
    }
