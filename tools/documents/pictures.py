"""Pictures of what a terminal shows: a command is run on one, and what it wrote becomes an SVG. And of messages."""

import fcntl
import html
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.cells import cell_len
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from documents.messages import MESSAGES

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
MISTAKES = Path(__file__).parent / "mistakes"
"""Where a configuration lies that is wrong in several ways."""

COLUMNS = 200
"""Of the terminal: wide enough that nothing is cut."""

SHOWN_COLUMNS = 112
"""Of a picture, at most: in a README more would be too small to read. Longer lines go on below."""

FONTS = "monospace"
FORMAT = re.sub(r"@font-face \{\{.*?\n    \}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code, monospace", FONTS
)
"""Rich's own, without fonts from elsewhere: a picture in a README may fetch nothing, and some viewers know one font."""

ATTRIBUTES = ("fill", "font-family", "font-size", "font-weight", "opacity", "text-decoration", "font-style")
"""What a style sheet of these pictures may say that an element may say itself."""

COLUMN_WIDTH = 12.2
"""Of a picture, as Rich draws it."""

TEXT = re.compile(
    r'<text (?P<attributes>[^>]*?) x="(?P<x>[^"]*)" y="(?P<y>[^"]*)" textLength="[^"]*">(?P<content>[^<]*)</text>'
)
RUN = re.compile(r"[!-~]+(?: [!-~]+)*|[^ -~\s]")

THEME = TerminalTheme(
    (15, 18, 22),
    (232, 235, 239),
    [
        (96, 104, 115),
        (245, 82, 74),
        (93, 234, 181),
        (252, 220, 83),
        (59, 143, 255),
        (249, 146, 240),
        (127, 181, 255),
        (232, 235, 239),
    ],
)

EVENT_LINES = 10

SWAYING = ("WATCHER_", "CLERK_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
"""Beginnings of variables that would sway what the program writes."""


def record(*arguments: str, folder: Path = FOLDER, columns: int = COLUMNS) -> list[str]:
    """Run the program in a folder, on a terminal; return the lines it wrote there, colours and all."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    others = {name: value for name, value in os.environ.items() if not name.startswith(SWAYING)}
    environ = {**others, "TERM": "xterm-256color", "TZ": "UTC", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "watcher", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environ, cwd=folder):
        os.close(theirs)
        written = io.BytesIO()
        while chunk := _read(ours):
            written.write(chunk)
    os.close(ours)
    return written.getvalue().decode().replace("\r\n", "\n").rstrip("\n").split("\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the last writer has gone
        return b""


def svg(lines: Sequence[str], *, title: str, made_from: str) -> str:
    """Return a picture of a terminal with these lines. `made_from` is noted in it."""
    texts = [Text.from_ansi(line) for line in lines]
    width = min(SHOWN_COLUMNS, max(text.cell_len for text in texts) + 1)
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    for text in texts:
        console.print(text)
    picture = console.export_svg(title=title, theme=THEME, code_format=FORMAT, unique_id="terminal")
    return f"{_plain(picture).rstrip()}\n<!-- made from {made_from} -->\n"


def _plain(picture: str) -> str:
    """Put the style sheet's rules beside what they style: not every viewer of SVG reads style sheets."""
    sheet = re.search(r"<style>(.*?)</style>\s*", picture, re.DOTALL)
    assert sheet
    picture = picture.replace(sheet[0], "").replace("rgba(255,255,255,0.35)", "#60656d")
    # Rich cuts the last line below its base line, and no line is longer than the picture is wide.
    picture = re.sub(r"""<clipPath.*?</clipPath>\s*|\s+clip-path="[^"]*\"""", "", picture, flags=re.DOTALL)
    for name, rules in re.findall(r"\.(terminal-\w+) \{(.*?)\}", sheet[1], re.DOTALL):
        pairs = (rule.split(":", 1) for rule in rules.split(";") if ":" in rule)
        styles = " ".join(f'{key.strip()}="{value.strip()}"' for key, value in pairs if key.strip() in ATTRIBUTES)
        picture = picture.replace(f'class="{name}"', styles)
    return TEXT.sub(_placed, picture)


def _placed(text: re.Match[str]) -> str:
    """Put each word, and each sign that is no ASCII, at its own column.

    Some viewers drop leading blanks, and their fonts draw signs wider or narrower than a column.
    """
    attributes, content = text["attributes"], html.unescape(text["content"]).replace("\xa0", " ")
    placed = []
    for run in RUN.finditer(content):
        x = float(text["x"]) + COLUMN_WIDTH * cell_len(content[: run.start()])
        at = f'x="{x:.6g}" y="{text["y"]}" textLength="{COLUMN_WIDTH * cell_len(run[0]):.6g}"'
        placed.append(f"<text {attributes} {at}>{html.escape(run[0])}</text>")
    return "".join(placed)


def demo_picture() -> str:
    """Run the demonstration, about 30 s: show its beginning, its most varied moment and its end."""
    lines = record("demo", columns=SHOWN_COLUMNS)
    shown = ["$ make demo", lines[0], *_most_varied(lines[2:-1]), "…", lines[-1]]
    return svg(shown, title="make demo", made_from="watcher demo")


def _most_varied(lines: Sequence[str]) -> Sequence[str]:
    windows = [lines[start : start + EVENT_LINES] for start in range(len(lines) - EVENT_LINES)]
    return max(windows, key=lambda window: len({glyph for line in window for glyph in "○▶‖✓✕" if glyph in line}))


def mistakes_picture() -> str:
    """Show what is said of a file with mistakes."""
    lines = record("check", folder=MISTAKES)
    return svg(["$ watcher check", *lines], title="watcher check", made_from=f"{MISTAKES.name}/watcher.yaml")


PICTURES: Mapping[str, Callable[[], str]] = {"demo.svg": demo_picture, "mistakes.svg": mistakes_picture, **MESSAGES}
"""Each picture that is made, and what makes it."""

if __name__ == "__main__":
    for name, picture in PICTURES.items():
        (FOLDER / name).write_text(picture(), encoding="utf-8")
