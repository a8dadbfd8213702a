"""What a picture of a message is drawn on: text, buttons, boxes and bars, as an SVG that needs no style sheet."""

import textwrap
from dataclasses import dataclass, field
from html import escape

WIDTH = 720
LEFT = 24
LINE = 19
TEXT, MUTED, PANEL, EDGE, LINK = "#1a1d23", "#565e6b", "#ffffff", "#d5d8dd", "#0453e0"
CODE = "#eef0f2"
FONT = "Helvetica, Arial, sans-serif"


@dataclass
class Canvas:
    """Rows of text, from the top down. `y` is where the next begins."""

    parts: list[str] = field(default_factory=list)
    y: int = 34

    def text(self, text: str, *, x: int = LEFT, size: int = 14, bold: bool = False, colour: str = TEXT) -> None:
        """Draw one line."""
        weight = ' font-weight="bold"' if bold else ""
        self._text(escape(text), x=x, style=f'font-size="{size}" fill="{colour}"{weight}')

    def sender(self, note: str, *, name: str = "clerk-watcher") -> None:
        """Draw who posts, and beside it when."""
        beside = f'<tspan dx="8" font-size="11" font-weight="normal" fill="{MUTED}">{escape(note)}</tspan>'
        self._text(f"{name}{beside}", x=LEFT, style=f'font-size="14" fill="{TEXT}" font-weight="bold"')

    def reply(self, text: str) -> None:
        """Draw one line of a thread, with who posts it."""
        name = '<tspan font-size="12" font-weight="bold">clerk-watcher</tspan>'
        beside = f'<tspan dx="8">{escape(text)}</tspan>'
        self._text(f"{name}{beside}", x=2 * LEFT, style=f'font-size="14" fill="{TEXT}"')
        self.y += LINE + 4

    def _text(self, content: str, *, x: int, style: str) -> None:
        self.parts.append(f'<text x="{x}" y="{self.y}" font-family="{FONT}" {style}>{content}</text>')

    def paragraph(self, text: str, *, size: int = 14, bold: bool = False, colour: str = TEXT) -> None:
        """Draw a text, as many lines as it takes."""
        for line in text.split("\n"):
            for part in textwrap.wrap(line, width=round((WIDTH - 2 * LEFT) / size * 1.9)) or [""]:
                self.text(part, size=size, bold=bold, colour=colour)
                self.y += LINE
        self.y += 6

    def button(self, label: str, *, x: int = LEFT) -> None:
        """Draw a button beside the line."""
        width = 30 + 8 * len(label)
        box = f'x="{x}" y="{self.y - 18}" width="{width}" height="28" rx="4"'
        self.parts.append(f'<rect {box} fill="{PANEL}" stroke="{EDGE}"/>')
        style = f'font-size="14" fill="{LINK}" font-weight="bold" text-anchor="middle"'
        self._text(escape(label), x=x + width // 2, style=style)

    def code(self, text: str) -> None:
        """Draw a line in a box of its own."""
        box = f'x="{LEFT}" y="{self.y - 18}" width="{WIDTH - 2 * LEFT}" height="28" rx="4"'
        self.parts.append(f'<rect {box} fill="{CODE}" stroke="{EDGE}"/>')
        self.text(text, x=LEFT + 10, size=13)
        self.y += 34

    def bar(self, colour: str, *, top: int) -> None:
        """Draw a bar on the left, from there to here."""
        self.parts.append(f'<rect x="10" y="{top}" width="4" height="{self.y - top}" fill="{colour}"/>')

    def svg(self, title: str) -> str:
        """Return the whole picture."""
        height = self.y + 4
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">'
        panel = (
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="{PANEL}" stroke="{EDGE}"/>'
        )
        return "\n".join([head, f"<title>{escape(title)}</title>", panel, *self.parts, "</svg>\n"])
