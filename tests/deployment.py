"""What the tests of deploy/ share: the image, what it sets, and the configurations that are mounted into it."""

import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from unit.conftest import Command

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")

ENDING_S = 8.0
"""A drain takes no longer."""

PROGRAMS = ROOT / ".venv/helm"
"""Where `make .venv/dev` puts helm and kubectl, which are for Linux on x86-64."""

RUNS = (platform.system(), platform.machine()) == ("Linux", "x86_64") and PROGRAMS.exists()

needs_helm = pytest.mark.skipif(not RUNS, reason="helm and kubectl do not run here: make .venv/dev, on Linux on x86-64")


def run(program: str, *words: str | Path) -> str:
    """Return what helm or kubectl prints. Raises `CalledProcessError` with what it says on stderr."""
    command = [str(PROGRAMS / program), *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


SECRETS = {
    "clerk_api_key": "k",
    "ops_webhook_secret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz",
    "postgres_password": "p",
    "slack_webhook_url": "https://hooks.slack.com/services/T00000000/B00000000/0123456789",
    "pagerduty_routing_key": "0123456789abcdef0123456789abcdef",
    "watcher_token": "0123456789abcdef0123456789abcdef",
}

TOKEN_VARIABLE = "WATCHER_TOKEN"
"""What the configurations of Compose and systemd read for `http.token`."""


def image_variables() -> dict[str, str]:
    """Return what the image sets."""
    found = re.search(r"^ENV ((?:.*\\\n)*.*)", DOCKERFILE, re.MULTILINE)
    return dict(re.findall(r"(\w+)=(\S+)", found[1] if found else ""))


def with_secrets(config: Path, folder: Path) -> Path:
    """Return a copy that reads its secrets below `folder` instead of /run."""
    text = config.read_text(encoding="utf-8")
    for directory, name in set(re.findall(r"/run/(secrets[\w/-]*)\}?/(\w+)(?: +#.*)?$", text, re.MULTILINE)):
        (folder / directory).mkdir(parents=True, exist_ok=True)
        (folder / directory / name).write_text(f"{SECRETS[name]}\n", encoding="utf-8")
    copy = folder / config.name
    copy.write_text(text.replace("/run/secrets", f"{folder}/secrets"), encoding="utf-8")
    return copy


def check(config: Path, folder: Path, environ: Mapping[str, str], command: Command) -> None:
    """Have the program check what is mounted, with the image's variables: it warns of the examples in it alone."""
    settings = {name: value for name, value in image_variables().items() if name.startswith("WATCHER_")}
    ended = command("check", "--config", str(with_secrets(config, folder)), **{**settings, **environ})
    lines = ended.err.splitlines()
    assert ended.code == 0, lines
    expected = ["looks like the id of an example", "heartbeat.url: is an example"]
    expected += ["there is no folder /var/lib/watcher"]  # in the image there is
    assert [line for line in lines if not any(each in line for each in expected)] == []
