"""What the Dockerfile, the unit and CI promise about the program: its variables, its paths, its ending."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment import DEPLOY, DOCKERFILE, ENDING_S, ROOT, SECRETS, image_variables, with_secrets

from watcher.config.files import DEFAULTS, STORE_VARIABLE, SYSTEM_PLACE, VARIABLE
from watcher.config.loader import load_config
from watcher.daemon.from_settings import routes_of
from watcher.daemon.supervisor import DRAIN_S, FLUSH_S
from watcher.domain.problems import PROBLEM_KINDS
from watcher.runtime.units import parse_duration

UNIT = (DEPLOY / "systemd" / "clerk-watcher.service").read_text(encoding="utf-8")
DROP_IN = (DEPLOY / "systemd" / "slack-and-pager.conf").read_text(encoding="utf-8")
CONFIG = DEPLOY / "config" / "watcher.yaml"
ALERTS = DEPLOY / "slack-and-pager" / "watcher.yaml"
ALERTS_ON_KUBERNETES = DEPLOY / "kubernetes" / "slack-and-pager" / "watcher.yaml"
MOUNTED = sorted(DEPLOY.rglob("watcher.yaml"))
"""What to watch, for each way to deploy it."""


def unit(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)


def document_of(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def test_the_variables_that_are_set_are_read() -> None:
    for names in (image_variables(), [line.partition("=")[0] for line in unit("Environment")]):
        ours = {name for name in names if name != "PATH" and not name.startswith("PYTHON")}
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


def test_a_configuration_leaves_the_rest_to_its_surroundings_and_differs_in_secrets() -> None:
    for path in MOUNTED:
        document = document_of(path)
        (watch,) = document["watch"]
        assert set(watch) - {"rules"} == {"pipeline"}, path
        assert document["heartbeat"] == {"url": "https://hc-ping.com/your-check"}, path
        assert [key for block, key in DEFAULTS.values() if key in document.get(block, {})] == [], path
    secrets = r"\S*/(?=clerk_api_key|ops_webhook_secret|slack_webhook_url|pagerduty_routing_key)"
    alerts = [ALERTS, ALERTS_ON_KUBERNETES]
    for several in ([path for path in MOUNTED if path not in alerts], alerts):
        documents = [yaml.safe_load(re.sub(secrets, "", path.read_text("utf-8"))) for path in several]
        for document in documents:
            document.pop("store", None)
            assert document.pop("http").keys() <= {"token", "token_file"}
        assert documents == documents[:1] * len(several)


def test_the_credentials_of_the_unit_and_of_its_drop_in_are_those_the_configuration_reads() -> None:
    for text, path in ((UNIT, CONFIG), (DROP_IN, ALERTS)):
        read = re.findall(r"/run/secrets}/(\w+)", path.read_text(encoding="utf-8"))
        loaded = re.findall(r"^LoadCredential=(\w+):/etc/watcher/credentials/(\w+)$", text, re.MULTILINE)
        assert loaded == [(name, name) for name in read]
    assert next(line for line in DROP_IN.splitlines() if "LoadCredential" in line) == "LoadCredential="


@pytest.mark.parametrize("path", [ALERTS, ALERTS_ON_KUBERNETES], ids=["Compose and systemd", "Kubernetes"])
def test_what_pages_is_what_opens_a_problem_and_a_rule_leads_to_it(path: Path, tmp_path: Path) -> None:
    settings = load_config(with_secrets(path, tmp_path), environ={})
    rules = settings.watch[0].rules
    assert rules is not None
    assert rules.failing is not None
    assert (
        routes_of(settings)["pager"].types == PROBLEM_KINDS
    )  # sink.disabled, for example: nothing gets through to the chat


def test_the_unit_and_the_image_keep_state_in_one_place_run_as_nobody_and_leave_time_to_drain() -> None:
    url = "sqlite:////var/lib/watcher/watcher.db"
    assert unit("ExecStart")[0].endswith(f"run --config {SYSTEM_PLACE}")
    assert {"VOLUME /var/lib/watcher", "USER 65532:65532"} <= {*DOCKERFILE.splitlines()}
    assert image_variables()[STORE_VARIABLE] == url
    assert f"{STORE_VARIABLE}={url}" in unit("Environment")
    assert unit("WorkingDirectory") == ["/var/lib/watcher"]
    assert (unit("DynamicUser"), unit("ProtectSystem")) == (["yes"], ["strict"])
    assert DRAIN_S + FLUSH_S < ENDING_S < parse_duration(unit("TimeoutStopSec")[0])


def test_the_image_has_the_files_of_its_context_and_a_pinned_base() -> None:
    taken = {
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert taken == allowed
    installed = re.findall(r"--require-hashes -r (\S+)", DOCKERFILE)
    assert set(installed) <= taken
    assert re.findall(r"^FROM (.+)$", DOCKERFILE, re.MULTILINE)[1:] == [
        "${BASE} AS dependencies",
        "dependencies AS package",
        "${BASE}",
    ]
    assert re.search(r"^FROM python:3\.13-slim@sha256:[0-9a-f]{64} AS pinned$", DOCKERFILE, re.MULTILINE)
    assert "--build-arg BASE=pinned " in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "            BASE=pinned\n" in (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    for path in DEPLOY.glob("compose*.yaml"):
        assert document_of(path)["services"]["watcher"]["build"] == {"context": "..", "args": {"BASE": "pinned"}}


def test_ci_runs_what_a_change_must_pass_and_hooks_fetch_nothing() -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["test"]
    install, run = (step["run"] for step in job["steps"] if "run" in step)
    assert install.endswith(
        "--no-install-recommends prometheus prometheus-alertmanager pgbouncer faketime postgresql"
    )  # needs root
    assert run == ".ci/run"
    (programs,) = re.findall(r"^ +for package in (.*); do #", (ROOT / run).read_text(encoding="utf-8"), re.MULTILINE)
    assert programs == "prometheus prometheus-alertmanager pgbouncer faketime chromium"
    assert os.access(ROOT / ".ci/run", os.X_OK)
    named = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert job["strategy"]["matrix"]["python"] == named
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert {(hook["language"], hook["entry"].partition(" ")[0]) for hook in repository["hooks"]} == {
        ("system", ".venv/bin/ruff"),
        ("system", ".venv/bin/mypy"),
    }
