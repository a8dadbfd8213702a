"""The chart's README, from its values and the comments beside them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from documents.rules import DEPLOY

CHART = DEPLOY / "helm" / "clerk-watcher"

HEAD = """\
# clerk-watcher

{description}

```sh
helm install clerk-watcher oci://CHARTS/clerk-watcher --version {version} --values values.yaml --wait
```

[docs/helm.md](../../../docs/helm.md) has every step, and [examples](examples) has whole files of values. It needs
Kubernetes {oldest} or later.

## Values

Made by `make docs` from [values.yaml](values.yaml). A misspelt value is refused. What Kubernetes defines is passed on
as it is, and `null` takes a default away.

| value | default | what it does |
|---|---|---|
"""

KEY = re.compile(r"(?P<indent> *)(?P<name>\w+):(?:(?P<value>[^#\n]*?)(?: +# (?P<note>.*))?)?$")

WIDTH = 60
"""Maximum length of a default in the table; a longer one is in values.yaml."""


def chart_readme() -> str:
    """Return the whole page."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    oldest = re.sub(r"\.0-0$", "", chart["kubeVersion"].removeprefix(">="))
    return HEAD.format(description=chart["description"], version=chart["version"], oldest=oldest) + "".join(_rows())


def _rows() -> Iterator[str]:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    blocks = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))["properties"]
    notes: list[str] = []
    block = ""
    for line in text.splitlines():
        if line.lstrip().startswith("# "):
            notes.append(line.lstrip(" #"))
            continue
        found = KEY.fullmatch(line)
        name = found["name"] if found else ""
        if found and not found["indent"]:
            block = name if "additionalProperties" in blocks[name] else ""
            if not block:
                yield _row(name, _default(values[name]), notes, found["note"])
            elif notes:
                yield _row(name, "", notes, None)
        elif found and block and found["indent"] == "  ":
            yield _row(f"{block}.{name}", _default(values[block][name]), notes, found["note"])
        notes = []


def _row(name: str, default: str, above: list[str], beside: str | None) -> str:
    words = " ".join([*above, *([beside] if beside else [])])
    return f"| `{name}` | {default} | {words.replace('|', chr(92) + '|')} |\n"


def _default(value: object) -> str:
    text = json.dumps(value)
    return f"`{text}`" if len(text) <= WIDTH else "in values.yaml"
