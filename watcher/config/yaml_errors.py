"""What a YAML parser's complaint means, in words for people. The parser's own texts and snippets are never shown."""

import re

import yaml

_TAB = re.compile(r" *\t")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_BRACES = "a variable without quotes inside { } or [ ]"
_MEANINGS = (
    (
        "mapping values are not allowed",
        "a colon where none can be",
        'quote a text that holds ": ", or check indentation',
    ),
    ("sequence entries are not allowed", "a list item where none can be", "begin the list on a line of its own"),
    ("cannot start any token", "a character no plain text may begin with", "quote the text"),
    ("escape character", "an unknown \\ sequence in double quotes", "use single quotes, or \\\\ for a backslash"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing", "close it with ] or }"),
    ("expected key", "does not line up with the keys above", "indent keys of one block alike"),
    ("expected <block end>", "does not line up with the lines above", "indent keys of one block alike"),
    ("expected '-' indicator", "does not line up with the list above", "begin each item with -, indented alike"),
    ("while scanning an alias", "an alias (*) without a name", 'quote a glob: "*"'),
)


class BadYamlError(Exception):
    """The text cannot be read any further. `line` and `column` count from 1, and are 0 where there is no place."""

    def __init__(self, line: int, column: int, *, problem: str, remedy: str) -> None:
        """Keep the parts."""
        super().__init__(problem)
        self.line = line
        self.column = column
        self.problem = problem
        self.remedy = remedy


def decode(data: bytes) -> str:
    """Return the text of a file. Raises `BadYamlError` if it is not UTF-8, or holds what no text holds."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadYamlError(line, 1, problem="not UTF-8", remedy="save the file as UTF-8") from None
    if odd := _UNPRINTABLE.search(text):
        line, column = text.count("\n", 0, odd.start()) + 1, odd.start() - text.rfind("\n", 0, odd.start())
        raise BadYamlError(line, column, problem="a control character", remedy="delete it")
    return text


def explain(error: yaml.YAMLError, *, text: str) -> BadYamlError:
    """Return what an error of the parser means."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return BadYamlError(0, 0, problem="not YAML", remedy="check it with a YAML linter")
    mark = error.problem_mark
    lines = text.split("\n")
    if mark.line < len(lines) and (tab := _TAB.match(lines[mark.line])):
        return BadYamlError(mark.line + 1, tab.end(), problem="tab used for indentation", remedy="use spaces")
    complaint = f"{error.problem} {error.context}"
    if "unexpected end of stream" in complaint and error.context_mark:
        mark = error.context_mark
        return BadYamlError(mark.line + 1, mark.column + 1, problem="a quote is never closed", remedy="close it")
    if mark.line >= len(lines) and error.context_mark:
        mark = error.context_mark  # the text ends, and this is where the bracket was opened
    elif "expected ',' or" in complaint and "${" in lines[mark.line]:
        return BadYamlError(mark.line + 1, mark.column + 1, problem=_BRACES, remedy='write "${NAME}"')
    unknown = ("not YAML", "check quotes, brackets and indentation here and above")
    problem, remedy = next((rest for fragment, *rest in _MEANINGS if fragment in complaint), unknown)
    return BadYamlError(mark.line + 1, mark.column + 1, problem=problem, remedy=remedy)
