"""The chart: the same as the manifests for kustomize, right by the schemas of Kubernetes, and clear about mistakes."""

import json
import subprocess
import tarfile
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from deployment import DEPLOY, ROOT, needs_helm, run
from unit.deploy.test_kubernetes import VERSIONS, Manifest, built, by_kind, container_of, with_components

CHART = DEPLOY / "helm" / "clerk-watcher"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
OPERATOR = {"ServiceMonitor", "PrometheusRule"}
"""What the Prometheus Operator defines, not Kubernetes."""

pytestmark = [pytest.mark.ci, needs_helm]


def values_of(example: str) -> Path:
    return CHART / "examples" / f"{example}.yaml"


def rendered(*words: str | Path, release: str = "clerk-watcher", chart: Path = CHART) -> dict[str, Manifest]:
    """Return what would be installed, by kind; Grafana's ConfigMap as `dashboard`."""
    chunks = run("helm", "template", release, chart, *words).split("\n---\n")
    dashboards = [chunk for chunk in chunks if "-dashboard\n" in chunk]
    kinds = by_kind("\n---\n".join(chunk for chunk in chunks if chunk not in dashboards))
    if dashboards:
        kinds["dashboard"] = yaml.safe_load(*dashboards)
    return kinds


def refusal(*words: str | Path) -> str:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        rendered(*words)
    return str(caught.value.stderr)


def config_of(kinds: dict[str, Manifest]) -> Any:
    """Return the configuration that is mounted."""
    return yaml.safe_load(kinds["ConfigMap"]["data"]["watcher.yaml"])


OURS = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
    "helm.sh/resource-policy",
}


def comparable(node: Any) -> Any:
    """Return manifests without what only the chart says of them, and with volumes in the order of their names."""
    if isinstance(node, list):
        return [comparable(each) for each in node]
    if isinstance(node, dict):
        kept = {key: comparable(value) for key, value in node.items() if key not in OURS}
        kept |= {key: sorted(kept[key], key=itemgetter("name")) for key in ("volumes", "volumeMounts") if key in kept}
        return {key: value for key, value in kept.items() if (key, value) != ("annotations", {})}
    return node


@pytest.mark.parametrize("example", ["sqlite", "postgres"])
def test_an_example_installs_what_its_overlay_of_kustomize_applies(example: str) -> None:
    ours, theirs = rendered("--values", values_of(example)), built(example)
    assert config_of(ours) == config_of(theirs)
    assert comparable(ours | {"ConfigMap": {}}) == comparable(theirs | {"ConfigMap": {}})


def test_an_example_installs_what_its_overlay_of_kustomize_applies_with_both_components(tmp_path: Path) -> None:
    ours = rendered("--values", values_of("slack-and-pager"))
    theirs = with_components(["prometheus", "ingress"], "slack-and-pager", tmp_path)
    theirs["ConfigMap"]["data"]["watcher.yaml"] = theirs["ConfigMap"]["data"]["watcher.yaml"].replace(
        "# public", "public"
    )
    assert config_of(ours) == config_of(theirs)
    dashboard = ours.pop("dashboard")
    assert comparable(ours | {"ConfigMap": {}}) == comparable(theirs | {"ConfigMap": {}})
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = dashboard["data"].values()
    assert json.loads(text) == json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_comes_through_as_it_is(path: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for block, key in (("store", "url"), ("http", "listen")):
        (document.get(block) or {}).pop(key, None)
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"config": document}), encoding="utf-8")
    assert config_of(rendered("--values", values)) == document


def test_two_releases_in_one_namespace_leave_each_other_alone() -> None:
    first, second = (rendered("--values", values_of("slack-and-pager"), release=name) for name in ("eu", "1"))
    names = [{manifest["metadata"]["name"] for manifest in kinds.values()} for kinds in (first, second)]
    assert names[0] == {"eu-clerk-watcher", "eu-clerk-watcher-dashboard"}
    assert names[0].isdisjoint(names[1])
    selectors = [
        first["Service"]["spec"]["selector"],
        first["Deployment"]["spec"]["selector"]["matchLabels"],
        first["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        first["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        first["ServiceMonitor"]["spec"]["selector"]["matchLabels"],
    ]
    pods = [kinds["Deployment"]["spec"]["template"]["metadata"]["labels"] for kinds in (first, second)]
    job = first["Service"]["metadata"]["labels"][first["ServiceMonitor"]["spec"]["jobLabel"]]
    assert f'up{{job="{job}"}}' in str(first["PrometheusRule"])  # the alerts are of every release
    for selector in selectors:
        assert selector.items() <= pods[0].items()
        assert not selector.items() <= pods[1].items()


OTHER: dict[str, Any] = {
    "config": {"http": {"public_url": "https://other.test"}},
    "secrets": ["clerk-watcher", "other-secret"],
    "env": [{"name": "OTHER_NAME", "value": "other-variable"}],
    "image": {"repository": "other.test/image", "tag": "other-tag"},
    "imagePullSecrets": [{"name": "other-pull"}],
    "resources": {"requests": {"cpu": "101m", "memory": "193Mi"}, "limits": {"memory": "513Mi"}},
    "nodeSelector": {"disk": "other-disk"},
    "tolerations": [{"key": "other-taint"}],
    "networkPolicy": {"from": [{"podSelector": {"matchLabels": {"a": "other-from"}}}], "egressPorts": [588]},
    "ingress": {
        "annotations": {"a": "other-note"},
        "className": "other-class",
        "host": "other.test",
        "tlsSecret": "other-tls",
        "controllerNamespace": "other-controller",
    },
    "serviceMonitor": {"interval": "31s", "labels": {"a": "other-monitor"}},
    "prometheusRule": {"labels": {"a": "other-rule"}, "repository": "https://other.test/repository"},
    "grafanaDashboard": {"labels": {"a": "other-dashboard"}},
}
"""For each value another than its default."""

STORES: dict[str, dict[str, Any]] = {
    "a new volume": {"persistence": {"size": "6Gi", "storageClass": "other-storage"}},
    "a volume that is there": {"persistence": {"existingClaim": "other-claim"}},
    "PostgreSQL": {"postgresql": {"url": "postgresql://other.test/database", "replicas": 47}},
}


def leaves(node: Any) -> Iterator[str]:
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from leaves(child)
    else:
        yield str(node)


@pytest.mark.ci
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_value_is_used_and_gives_what_its_schemas_ask(store: str, version: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(OTHER | STORES[store]), encoding="utf-8")
    kinds = rendered("--values", values_of("slack-and-pager"), "--values", values)
    text = yaml.safe_dump_all(kinds.values(), width=1000)
    assert [leaf for leaf in leaves(OTHER | STORES[store]) if leaf not in text] == []
    assert ("PersistentVolumeClaim" in kinds) is (store == "a new volume")
    for kind in kinds.keys() - OPERATOR:
        kubernetes_validate.validate(kinds[kind], version, strict=True)


def test_a_digest_takes_the_place_of_the_tag_a_config_map_of_the_configuration_and_a_policy_may_be_left_out() -> None:
    digest = f"sha256:{'1' * 64}"
    words = ("existingConfigMap=theirs", f"image.digest={digest}", "networkPolicy.enabled=false")
    kinds = rendered("--set", ",".join(words))
    assert kinds.keys().isdisjoint({"ConfigMap", "NetworkPolicy"})
    config, *_ = kinds["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert config["configMap"] == {"name": "theirs"}
    assert container_of(kinds["Deployment"])["image"] == f"{VALUES['image']['repository']}@{digest}"


PORTS = {"db": 5432, "db:6432": 6432, "u@[::1]:7": 7, "[::1]": 5432}


@pytest.mark.parametrize("host", PORTS)
@pytest.mark.parametrize("rest", ["/watcher", "/watcher?sslmode=require", "", "?x=1"])
def test_the_policy_opens_the_port_of_the_database(host: str, rest: str) -> None:
    kinds = rendered("--values", values_of("postgres"), "--set-literal", f"postgresql.url=postgresql://{host}{rest}")
    assert kinds["NetworkPolicy"]["spec"]["egress"][-1]["ports"] == [{"protocol": "TCP", "port": PORTS[host]}]


MISTAKES = {
    "config=null": "nothing to watch",
    "existingConfigMap=theirs": "both `config` and `existingConfigMap` are set",
    "config.store.url=postgresql://a/b": "put a PostgreSQL's URL into `postgresql.url`",
    "config.http.listen=:1": "`config.http.listen` is set by the chart",
    "ingress.enabled=true,config.http=null": "`config.http.public_url` must be https://watcher.example.com",
    "ingress.enabled=true": "`config.http.public_url` must be https://watcher.example.com",
    "networkPolicy.from=null": "at '/networkPolicy': missing property 'from'",
    "replicas=3": "additional properties 'replicas' not allowed",
    "postgresql.url=sqlite:///x": "postgresql/url",
    "postgresql.url=postgresql://watcher:secret@db/watcher": "postgresql/url",
    "env[0].name=A,env[0].value=5": "env/0/value",
    "image.repository=registry.test:5000/watcher:1.2": "image/repository",
    "config.http=on": "config/http",
    "image.digest=latest": "image/digest",
    "secrets={Wrong Name}": "secrets/0",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_what_would_be_right(mistake: str) -> None:
    assert MISTAKES[mistake] in refusal("--values", values_of("sqlite"), "--set", mistake)


def test_no_value_is_left_out_and_the_schema_knows_each() -> None:
    named = (
        OTHER | STORES["PostgreSQL"] | {"persistence": {**STORES["a new volume"]["persistence"], "existingClaim": ""}}
    )
    assert named.keys() == VALUES.keys() - {"existingConfigMap"}
    for name in ("persistence", "postgresql", "ingress", "serviceMonitor", "prometheusRule", "networkPolicy"):
        assert named[name].keys() == VALUES[name].keys() - {"enabled"}
    assert SCHEMA["properties"].keys() - {"global"} == VALUES.keys()
    for name, block in SCHEMA["properties"].items():
        if "properties" in block and name != "config":
            assert block["additionalProperties"] is False
            assert block["properties"].keys() == {*block["required"]} == VALUES[name].keys()


def test_the_package_installs_the_same_and_its_notes_lead_to_the_pages(tmp_path: Path) -> None:
    run("helm", "package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("clerk-watcher-*.tgz")
    with tarfile.open(package) as archive:
        assert all(member.isfile() for member in archive.getmembers())
    words = ("--values", values_of("slack-and-pager"))
    assert rendered(*words, chart=package) == rendered(*words)
    notes = run("helm", "install", "eu", CHART, *words, "--dry-run=client").partition("NOTES:")[2]
    assert "logs --selector app.kubernetes.io/instance=eu,app.kubernetes.io/name=clerk-watcher" in notes
    assert "port-forward service/eu-clerk-watcher 8080" in notes
    assert "https://watcher.example.com/" in notes
