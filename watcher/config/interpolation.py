"""`${VAR}`, `${VAR:-default}` and `$$` in one value. Whatever a variable holds is text and nothing else."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^{}]*)?\}|(?P<odd>\{))")
_WITHOUT_BRACES = re.compile(r"(?:^|(?<=\s))\$([A-Z_][A-Z0-9_]+)(?=$|[\s/])")
"""As a shell reads it. A password may hold a dollar, too: so only what stands alone."""


@dataclass(frozen=True, slots=True)
class Interpolated:
    """A value with its variables filled in, and what kept some of them empty.

    `unset` are the variables that are not there, `malformed` says that some `${` begins no variable, `without_braces`
    is a name behind a bare `$`. `used` says that a variable stands in it at all: then nobody may show it.
    """

    text: str
    used: bool
    unset: tuple[str, ...] = ()
    malformed: bool = False
    without_braces: str | None = None


def fill(text: str, *, environ: Mapping[str, str]) -> Interpolated:
    """Fill in the variables. As in a shell, `:-` counts an empty variable as missing; a lone `$` stays."""
    found = tuple(_VARIABLE.finditer(text))
    missing = (match["name"] for match in found if match["name"] and match["default"] is None)
    bare = _WITHOUT_BRACES.search(text)
    return Interpolated(
        text=_VARIABLE.sub(lambda match: _value(match, environ=environ), text),
        used=any(match["dollar"] is None for match in found),
        unset=tuple(dict.fromkeys(name for name in missing if name not in environ)),
        malformed=any(match["odd"] for match in found),
        without_braces=bare[1] if bare else None,
    )


def _value(match: re.Match[str], *, environ: Mapping[str, str]) -> str:
    if match["name"] is None:
        return match["dollar"] or match[0]
    value = environ.get(match["name"], "")
    if value or match["default"] is None:
        return value
    return match["default"].removeprefix(":-")
