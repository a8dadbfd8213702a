"""What the daemon refuses to start with until a person corrects it: all of it on stderr, nothing on stdout."""

import gc
from pathlib import Path

from unit.conftest import Command

CONFIG = """
accounts: {default: {api_key: k, base_url: 'http://127.0.0.1:1'}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f}]
http: {listen: '127.0.0.1:0'}
store: {url: 'sqlite:///nowhere/w.db'}
"""


def test_a_store_in_a_folder_that_is_not_there_is_named(command: Command) -> None:
    Path("watcher.yaml").write_text(CONFIG)
    code, out, err = command("run")
    gc.enable()  # a start goes without the garbage collector, other tests do not
    assert (code, out, "nowhere/w.db cannot be used" in err) == (2, "", True)
