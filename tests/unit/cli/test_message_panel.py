import io

import pytest
from rich.console import Console
from sample_events import failed, sample

from watcher.cli.message_panel import message_panel
from watcher.delivery.sinks.slack import SlackTemplate
from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType


def printed(*lines: str, encoding: str = "utf-8", columns: int = 60) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=columns)
    console.print(message_panel(lines, title="sinks.chat  https://h", encoding=console.encoding))
    stream.seek(0)
    return stream.read()


def test_a_message_stands_in_a_frame_under_its_title() -> None:
    top, headline, text, bottom = printed("✕ Sales agent failed", "why").splitlines()
    assert top.startswith("╭─ sinks.chat  https://h ──")
    assert headline.split("│")[1].strip() == "✕ Sales agent failed"
    assert text.split("│")[1].strip() == "why"
    assert set(bottom) == set("╰─╯")


def test_nothing_in_it_is_markup_or_obeyed() -> None:
    text = printed("[red]a[/] :tada:", "b\x1b[31m\u202e")
    assert "[red]a[/] :tada:" in text
    assert r"b\x1b[31m\u202e" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("batch", [[failed(), failed(2)], [sample(EventType.EXECUTION_OVERDUE)]])
def test_a_terminal_without_our_signs_has_others(batch: list[Delivery]) -> None:
    template = SlackTemplate()
    (message,) = template.messages(batch)
    assert printed(*template.preview(message.body), encoding="ascii").isascii()
