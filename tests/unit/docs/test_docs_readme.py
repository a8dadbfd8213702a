"""What a newcomer copies from the README works as it stands there; a warning says which id to replace."""

import re
from pathlib import Path

import pytest
from documents import DOCS
from examples import ENVIRON

from watcher.config.checks import find_warnings
from watcher.config.document import Document
from watcher.config.loader import load_config
from watcher.config.models import Settings
from watcher.domain.problems import CLOSINGS, PROBLEM_KINDS
from watcher.domain.routing import types_matching
from watcher.sinks.settings import GroupSettings
from watcher.sinks.webhook import WebhookSettings

EXAMPLES = re.findall(r"```yaml\n(.*?)```", (DOCS.parent / "README.md").read_text(encoding="utf-8"), re.DOTALL)
WATCHED = """
accounts: {default: {api_key: k}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, overdue_after: {running: 15m}}]
"""


def load(example: str, folder: Path) -> tuple[Settings, Document]:
    file = folder / "watcher.yaml"
    file.write_text(example if "watch:" in example else WATCHED + example)
    document = Document(file=str(file))
    return load_config(file, environ=ENVIRON, document=document), document


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_can_be_copied_and_leads_to_no_warning_but_of_its_id(example: str, tmp_path: Path) -> None:
    settings, document = load(example, tmp_path)
    assert settings.watch
    found = {warning.problem for warning in find_warnings(document, settings)}
    assert found == {"looks like the id of an example"}


def test_the_pager_rings_at_three_failures_in_a_row_for_what_also_ends_and_the_chat_is_grouped(tmp_path: Path) -> None:
    settings, _ = load(EXAMPLES[0], tmp_path)
    (watch,) = settings.watch
    assert watch.rules is not None
    assert watch.rules.failing is not None
    assert watch.rules.failing.consecutive == 3
    assert types_matching(settings.sinks["phone"].events) <= PROBLEM_KINDS | CLOSINGS
    chat = settings.sinks["chat"]
    assert isinstance(chat, WebhookSettings)
    assert chat.group == GroupSettings.model_validate({"by": ["account"], "wait": "10s"})


def test_the_file_of_the_readme_is_an_example_of_the_configuration() -> None:
    assert EXAMPLES[0] == (DOCS.parent / "config" / "quiet-chat-loud-pager.yaml").read_text(encoding="utf-8")
