"""A folder as a configuration: what its files say is put together, and every message says in which file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from watcher.config.checks import find_warnings
from watcher.config.document import ConfigProblemsError, Document
from watcher.config.files import LISTEN_VARIABLE, config_files
from watcher.config.loader import ConfigSource, load_config
from watcher.config.locate import daemon_document, http_token
from watcher.config.models import Settings

FIRST, SECOND = "1c5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f", "2c5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
BASE = "polling: {max_interval: 30s}\nhttp: {listen: '127.0.0.1:7000', token_file: secret}\n"
HOURS = "from: '20:00', to: '22:00', timezone: UTC"
Folder = Callable[..., Path]


def customer(name: str, pipeline: str = FIRST, *, more: str = "") -> str:
    return (
        f"accounts:\n  {name}: {{api_key: key-of-{name}}}\n"
        f"watch:\n  - pipeline: {pipeline}\n    account: {name}\n    labels: {{customer: {name}}}\n{more}"
        f"sinks:\n  {name}: {{type: webhook, url: 'https://{name}.example/in', secret: whsec_{'MDAw' * 8}}}\n"
        f"reports:\n  {name}: {{at: '08:00', sinks: [{name}]}}\n"
        f"silences:\n  - {{match: {{sinks: [{name}]}}, weekly: {{days: [sat], {HOURS}}}}}\n"
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Write files into the folder `conf.d` of the working directory; return its relative path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf.d").mkdir()

    def folder(**files: str) -> Path:
        for name, text in files.items():
            Path("conf.d", f"{name}.yaml").write_text(text)
        return Path("conf.d")

    return folder


def mistakes(path: Path) -> list[str]:
    with pytest.raises(ConfigProblemsError) as caught:
        load_config(path, environ={})
    return str(caught.value).splitlines()


def test_the_entries_of_all_files_count_in_the_order_of_their_names(folder: Folder) -> None:
    path = folder(base=BASE, beta=customer("beta", SECOND), acme=customer("acme"), empty="# nothing yet\n")
    (path / "secret").write_text("t" * 32)
    settings = load_config(path, environ={})
    assert list(settings.accounts) == ["acme", "beta"]
    assert [(str(watch.pipeline), watch.account) for watch in settings.watch] == [(FIRST, "acme"), (SECOND, "beta")]
    assert list(settings.sinks) == ["acme", "beta", "stdout"]
    assert list(settings.reports) == ["acme", "beta"]
    assert [silence.match.sinks for silence in settings.silences] == [("acme",), ("beta",)]
    assert settings.polling.max_interval_s == 30
    assert settings.http.token is not None
    assert settings.http.token.get_secret_value() == "t" * 32  # a relative path begins in the folder


def test_one_file_in_a_folder_is_what_it_is_alone(folder: Folder) -> None:
    path = folder(acme=customer("acme"))
    assert load_config(path, environ={}) == load_config(path / "acme.yaml", environ={})


def test_a_name_or_key_that_stands_twice_is_an_error_at_both_places(folder: Folder) -> None:
    log = "log: {level: info}\n"
    path = folder(a=customer("acme") + log, b=customer("acme", SECOND) + log, c=customer("cee") + "accounts: {}\n")
    assert mistakes(path) == [
        "conf.d/b.yaml:2:3: accounts.acme: given twice, first at conf.d/a.yaml:2; remove one of them",
        "conf.d/b.yaml:8:3: sinks.acme: given twice, first at conf.d/a.yaml:8; remove one of them",
        "conf.d/b.yaml:10:3: reports.acme: given twice, first at conf.d/a.yaml:10; remove one of them",
        "conf.d/b.yaml:13:1: log: given twice, first at conf.d/a.yaml:13; remove one of them",
        "conf.d/c.yaml:13:1: accounts: given twice, first at line 1; remove one of them",
        "5 problems in conf.d",
    ]


def test_what_is_twice_in_two_files_names_both(folder: Folder) -> None:
    again = f"watch:\n  - {{pipeline: {FIRST}, account: acme}}\n"
    key = "accounts:\n  other: {api_key: key-of-acme}\n"
    stdout = "sinks:\n  {}: {{type: stdout}}\n"
    path = folder(a=customer("acme"), b=again + key, c=stdout.format("c"), d=stdout.format("d"))
    assert mistakes(path) == [
        (
            "conf.d/b.yaml:2:16: watch[0].pipeline: already watched at conf.d/a.yaml:4 with the same account; "
            "merge the two entries"
        ),
        (
            "conf.d/b.yaml:4:20: accounts.other.api_key: the same key as another account's at conf.d/a.yaml:2; "
            "one account per key: its rate limit is one"
        ),
        (
            "conf.d/d.yaml:2:13: sinks.d.type: a second stdout sink, the first is at conf.d/c.yaml:2; "
            "merge the two: events: takes a list"
        ),
        "3 problems in conf.d",
    ]


def test_every_mistake_is_at_its_file_and_line_and_an_entry_is_counted_in_its_file(folder: Folder) -> None:
    bad = "    overdue_after: {running: soon}\n"
    path = folder(
        a=customer("acme") + "polling: {max_intervall: 1s}\n",
        b=customer("beta", SECOND, more=bad).replace("sinks: [beta]", "sinks: [bta]"),
        c="watch: 1\nsilences: {a: 1}\n",
        d="http: {token: '${UNSET}'}\n",
    )
    found = [line.partition("; ")[0] for line in mistakes(path)]
    assert found == [
        'conf.d/a.yaml:13:11: polling.max_intervall: unknown key "max_intervall"',
        'conf.d/b.yaml:7:30: watch[0].overdue_after.running: "soon" is not a duration',
        'conf.d/b.yaml:11:31: reports.beta.sinks[0]: "bta" is no sink that can show a report',
        'conf.d/b.yaml:13:22: silences[0].match.sinks[0]: "bta" is no sink that can be silenced',
        "conf.d/c.yaml:1:8: watch: holds no entries",
        "conf.d/c.yaml:2:11: silences: holds no entries",
        "conf.d/d.yaml:1:15: http.token: ${UNSET} is not set",
        "7 problems in conf.d",
    ]


def test_files_that_cannot_be_read_or_parsed_are_all_said(folder: Folder) -> None:
    path = folder(a=customer("acme"), b="watch: [\n", c="- x\n")
    (path / "d.yaml").symlink_to("nowhere")
    (path / "e.yaml").mkdir()
    (path / "f.yaml").write_bytes(b"log:\n  level: \xff\n")
    found = [line.partition("; ")[0] for line in mistakes(path)]
    uid = f"running as uid {os.geteuid()}"
    assert found == [
        "conf.d/b.yaml:2:1: a bracket is not closed, or a comma is missing",
        "conf.d/c.yaml:1:1: no keys",
        f"conf.d/d.yaml: cannot read this file (no such file or directory, {uid})",
        "conf.d/e.yaml: cannot read this file (a directory)",
        "conf.d/f.yaml:2:1: not UTF-8",
        "5 problems in conf.d",
    ]


def test_only_yaml_is_read_and_what_looks_like_it_is_warned_of(folder: Folder) -> None:
    path = folder(acme=customer("acme"))
    for name in (".acme.yaml", ".#acme.yaml", "notes.txt", "acme.yaml~", "old.yml"):
        (path / name).write_text("accounts: [\n")
    (path / "..data").mkdir()
    assert config_files(path) == [path / "acme.yaml"]
    document = Document(file=str(path))
    settings = load_config(path, environ={}, document=document)
    assert list(map(str, find_warnings(document, settings))) == [
        "conf.d/old.yml: is not read: in a folder only *.yaml is; rename it to old.yaml"
    ]


def test_a_folder_without_files_says_what_may_be_the_cause(folder: Folder) -> None:
    assert mistakes(folder()) == [
        (
            "conf.d: a folder in which no *.yaml can be found; name a file, or a folder of files; "
            "Docker makes a folder where the file of a mount is missing"
        ),
        "1 problem in conf.d",
    ]


def test_warnings_name_their_files_too(folder: Folder) -> None:
    path = folder(a=customer("acme"), b=customer("beta", SECOND).replace("https", "http"))
    source = ConfigSource(path, environ={})
    source.load()
    assert [str(warning).partition("; ")[0] for warning in source.warnings] == [
        "conf.d/b.yaml:8:30: sinks.beta.url: http:// to beta.example: whoever is on the way can read the events"
    ]


def test_commands_find_the_daemon_while_a_file_is_broken(folder: Folder) -> None:
    path = folder(a="watch: [\n", base=BASE)
    (path / "secret").write_text("t0ken")
    document = daemon_document(path, environ={})
    assert document.get(("http", "listen")) == "127.0.0.1:7000"
    assert http_token(document) == "t0ken"
    (path / "base.yaml").unlink()
    with pytest.raises(ConfigProblemsError, match=r"conf\.d/a\.yaml:2:1"):
        daemon_document(path, environ={LISTEN_VARIABLE: "127.0.0.1:1"})


@pytest.mark.ci
def test_fifty_files_with_five_hundred_pipelines_are_one_configuration(folder: Folder) -> None:
    watches = "".join(
        f"  - {{pipeline: {number:08x}-2c3a-4f1e-9d8a-7e6b5a4c3d2f, account: NAME}}\n" for number in range(9)
    )
    path = folder(**{f"c{each}": customer(f"c{each}", more=watches.replace("NAME", f"c{each}")) for each in range(50)})
    settings: Settings = load_config(path, environ={})
    assert (len(settings.accounts), len(settings.watch), len(settings.sinks)) == (50, 500, 51)
