"""The alerts of deploy/prometheus as the Prometheus Operator takes them."""

from pathlib import Path
from textwrap import indent

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yaml"

_HEAD = """# Made by `make docs` from deploy/prometheus/rules.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: clerk-watcher
  labels: {app.kubernetes.io/name: clerk-watcher}
spec:
"""


def prometheus_rule() -> str:
    """Return the manifest."""
    text = RULES.read_text(encoding="utf-8")
    return _HEAD + indent(text[text.index("groups:") :], "  ")
