"""Pages and pictures that are made from the code, so that they cannot drift from it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from documents.api import api, document
from documents.chart import CHART, chart_readme
from documents.configuration import configuration
from documents.events import events
from documents.rules import DEPLOY, prometheus_rule

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

PAGES: Mapping[Path, Callable[[], str]] = {
    REFERENCE / "api.md": api,
    ROOT / "watcher" / "web" / "openapi.json": document,
    REFERENCE / "configuration.md": configuration,
    REFERENCE / "events.md": events,
    DEPLOY / "kubernetes" / "prometheus" / "rules.yaml": prometheus_rule,
    CHART / "README.md": chart_readme,
}
"""Each page and what makes it."""
