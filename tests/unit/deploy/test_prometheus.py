"""The alerts and the dashboard: each query is one that Prometheus reads, of metrics and labels that there are."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from deployment import DEPLOY, ROOT
from sample_metrics import busy_pipeline, families_of

from watcher.domain.event import EventType
from watcher.runtime.metrics import AccountMetrics, Metrics, PipelineMetrics, SinkMetrics

PROMTOOL = shutil.which("promtool")
RULES = DEPLOY / "prometheus" / "rules.yaml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
WATCH, RUNBOOK = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("watch.md", "runbook.md"))
OF_PROMETHEUS = {"job", "instance", "le"}

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")


def promtool(*words: str, text: str = "") -> None:
    result = subprocess.run(
        [str(PROMTOOL), *words], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    """The metrics of a daemon in which everything has happened."""
    metrics = Metrics()
    AccountMetrics(metrics, "default").pipelines["0b5c"] = busy_pipeline()
    sink = SinkMetrics(metrics, "ops")
    sink.count_refresh(well=True)
    sink.report_state(well=False, answer="503")
    metrics.leases_held.labels("account").set(1)
    metrics.lease_takeovers.labels("account").inc()
    metrics.problems_open.labels(EventType.PIPELINE_FAILING).set(1)
    return metrics


@pytest.fixture(scope="module")
def labels(metrics: Metrics) -> dict[str, set[str]]:
    """The labels of each sample."""
    found: dict[str, set[str]] = {"up": set()}
    for family in families_of(metrics):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rule_queries() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def panel_queries() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m").replace("$account", ".*")


QUERIES = [*rule_queries(), *panel_queries()]
each_query = pytest.mark.parametrize(("name", "query"), QUERIES, ids=[name for name, _ in QUERIES])


@each_query
def test_a_query_asks_for_metrics_and_labels_that_there_are(name: str, query: str, labels: dict[str, set[str]]) -> None:
    asked = set(re.findall(r"\b(?:watcher|process)_\w+|\bup\b", query))
    assert asked, name
    assert asked <= labels.keys()
    there = set[str]().union(*(labels[each] for each in asked)) | OF_PROMETHEUS
    for metric, matchers in re.findall(r"(\w+)\{(.*?)\}", query):
        assert set(re.findall(r"(\w+)(?:=~|!=|!~|=)\"", matchers)) <= labels[metric] | OF_PROMETHEUS
    for grouped in re.findall(r"\b(?:by|on|group_left) \((.*?)\)", query):
        assert set(re.findall(r"\w+", grouped)) <= there


@each_query
@needs_promtool
def test_a_query_is_one_that_prometheus_reads(name: str, query: str) -> None:
    assert name
    promtool("--experimental", "promql", "format", query)


@needs_promtool
def test_prometheus_reads_the_metrics_and_rules_which_fire_when_they_should(metrics: Metrics) -> None:
    metrics.pipelines["default"]["77aa"] = PipelineMetrics('Onboarding "new"')  # nothing has happened in this one
    promtool("check", "metrics", text=b"".join(metrics.text()).decode())
    promtool("check", "rules", str(RULES))
    promtool("test", "rules", str(RULES.with_name("rules_test.yaml")))


def test_each_alert_is_tried_documented_and_leads_to_its_runbook() -> None:
    tried = RULES.with_name("rules_test.yaml").read_text(encoding="utf-8")
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"critical", "warning", "info"}
            assert rule["annotations"]["summary"]
            assert rule["alert"] in tried
    names = [name for name, _ in rule_queries()]
    assert re.findall(r"^- `(Watcher\w+)`: ", WATCH, re.MULTILINE) == names
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == names
    (address,) = re.findall(r"sed -i 's,(.*?),", WATCH)
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            page, _, section = rule["annotations"]["runbook_url"].partition("#")
            assert (page, section) == (f"{address}/blob/main/docs/runbook.md", rule["alert"].lower())


def test_a_panel_asks_the_chosen_source_has_a_place_and_a_legend_of_its_labels() -> None:
    (source, *variables) = DASHBOARD["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    assert [variable["name"] for variable in variables] == ["account", "pipeline"]
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    asking = [*variables, *panels(), *(target for panel in panels() for target in panel["targets"])]
    assert [each for each in asking if each["datasource"] != chosen] == []
    taken = set[tuple[int, int]]()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert taken.isdisjoint(cells)
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            left = set(re.findall(r"\w+", " ".join(re.findall(r"(?:by|group_left) \((.*?)\)", target["expr"]))))
            assert named <= left | {"instance"}, panel["title"]
