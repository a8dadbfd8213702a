"""The block of a sink by way of Apprise: its defaults, what it shows, and the extra that it needs."""

import json
import subprocess
import sys
from pathlib import Path

from watcher.cli.commands.starter import config_schema
from watcher.sinks.apprise import AppriseSettings


def settings(url: str) -> AppriseSettings:
    return AppriseSettings.model_validate({"type": "apprise", "url": url})


def test_only_the_scheme_is_ever_shown() -> None:
    ops = settings("NTFYS://user:s3cr3t@ntfy.example.com/s3cr3t")
    assert ops.target == "ntfys://"
    assert "s3cr3t" not in repr(ops)
    assert "example" not in repr(ops)


async def test_to_connect_is_left_to_sending() -> None:
    assert "--send" in await settings("ntfys://ntfy.example.com/topic").connect()


def test_it_brings_the_defaults_of_chat() -> None:
    ops = settings("ntfys://ntfy.example.com/topic")
    assert ops.rules.rate_per_s == 1
    assert "execution.failed" in ops.events
    assert "execution.success" not in ops.events


WITHOUT = """
import sys
sys.modules["apprise"] = None  # as if it were not installed
sys.argv = ["watcher", *sys.argv[1:]]
from watcher.__main__ import main
main()
"""
WITH_NONE = """
import sys
sys.argv = ["watcher", "check", "--config", sys.argv[1]]
from watcher.__main__ import main
try:
    main()
finally:
    loaded = {"apprise", "jinja2", "psycopg", "requests", "sqlalchemy"} & sys.modules.keys()
    print("loaded:", *sorted(loaded))
"""
WATCH = """accounts: {default: {api_key: k}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f}]
"""


def python(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)


def test_without_the_extra_a_file_that_needs_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "watcher.yaml"
    urls = ("ntfys://ntfy.sh/topic", "s3cr3t://x")
    sinks = "".join(f"  phone{number}: {{type: apprise, url: {url}}}\n" for number, url in enumerate(urls))
    file.write_text(f"{WATCH}sinks:\n{sinks}")
    done = python(WITHOUT, "check", "--config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    needs = "apprise needs the extra; from a checkout: pip install '.[apprise]'"
    assert done.stderr.splitlines() == [
        f"{file}:4:32: sinks.phone0.url: {needs}",
        f"{file}:5:32: sinks.phone1.url: {needs}",
        f"2 problems in {file}",
    ]


def test_without_the_extra_the_schema_is_the_same() -> None:
    assert json.loads(python(WITHOUT, "schema").stdout) == config_schema()


def test_what_no_sink_needs_is_not_loaded(tmp_path: Path) -> None:
    file = tmp_path / "watcher.yaml"
    file.write_text(WATCH)
    done = python(WITH_NONE, str(file))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "loaded:")
