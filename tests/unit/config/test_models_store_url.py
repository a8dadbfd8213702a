"""The URL of a PostgreSQL store, judged where it stands; what is wrong with one is in `test_loader_mistakes`."""

import sys

import pytest
from unit.config.conftest import Mistakes

from watcher.store.store_url import check_store_url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgres://watcher@db",
        "postgresql:///watcher?host=/var/run/postgresql&connect_timeout=2",
        "postgresql://watcher@a:5432,b,[::1]:5433/watcher?target_session_attrs=read-write&load_balance_hosts=random",
        "postgresql://db.invalid/watcher?hostaddr=192.0.2.1,192.0.2.2&keepalives_idle=5",
        "postgresql://db/watcher?sslmode=verify-full&sslrootcert=/not/there&sslnegotiation=direct",
        "postgresql://db/watcher?gssencmode=require&options=-csearch_path%3Dwatcher",
    ],
)
def test_what_libpq_takes_is_a_store_url_whatever_server_there_is(url: str) -> None:
    assert check_store_url(url) == url


def test_without_the_driver_it_is_said_how_to_install_it(mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert mistakes("store: {url: 'postgresql://db/watcher'}") == [
        "watcher.yaml:1:14: store.url: postgresql needs the extra; from a checkout: pip install '.[postgres]'",
        "1 problem in watcher.yaml",
    ]
