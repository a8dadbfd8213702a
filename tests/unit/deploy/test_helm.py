"""The chart: the same as the manifests for kustomize, right by the schemas of Kubernetes, and clear about mistakes."""

import json
import subprocess
import tarfile
from operator import itemgetter
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from deployment import DEPLOY, ROOT, check, needs_helm, run
from unit.conftest import Command
from unit.deploy.test_kubernetes import FOLDER, VERSIONS, Manifest, built, by_kind, container_of, with_components

CHART = DEPLOY / "helm" / "clerk-watcher"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
EXAMPLES = ("sqlite", "postgres", "slack-and-pager")
OPERATOR = {"ServiceMonitor", "PrometheusRule"}
"""What the Prometheus Operator defines, not Kubernetes."""

pytestmark = needs_helm
by_example = pytest.mark.parametrize("example", EXAMPLES)


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


@by_example
def test_lint_has_nothing_to_say(example: str) -> None:
    assert "0 chart(s) failed" in run("helm", "lint", "--strict", CHART, "--values", values_of(example))


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


@by_example
@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_installed_is_as_its_schemas_ask(example: str, version: str) -> None:
    for kind, manifest in rendered("--values", values_of(example)).items():
        if kind not in OPERATOR:
            kubernetes_validate.validate(manifest, version, strict=True)


@by_example
def test_the_program_accepts_the_configuration_that_is_mounted(example: str, tmp_path: Path, command: Command) -> None:
    kinds = rendered("--values", values_of(example))
    config = tmp_path / "watcher.yaml"
    config.write_text(kinds["ConfigMap"]["data"]["watcher.yaml"], encoding="utf-8")
    variables = {each["name"]: each["value"] for each in container_of(kinds["Deployment"]).get("env", [])}
    check(config, tmp_path, variables, command)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_comes_through_as_it_is(path: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for block, key in (("store", "url"), ("http", "listen")):
        (document.get(block) or {}).pop(key, None)
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"config": document}), encoding="utf-8")
    assert config_of(rendered("--values", values)) == document


def test_two_releases_in_one_namespace_leave_each_other_alone() -> None:
    first, second = (rendered("--values", values_of("slack-and-pager"), release=name) for name in ("eu", "us"))
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
    for selector in selectors:
        assert selector.items() <= pods[0].items()
        assert not selector.items() <= pods[1].items()


def test_the_alerts_name_the_job_of_every_release() -> None:
    kinds = rendered("--values", values_of("slack-and-pager"), release="eu")
    job = kinds["Service"]["metadata"]["labels"][kinds["ServiceMonitor"]["spec"]["jobLabel"]]
    assert f'up{{job="{job}"}}' in str(kinds["PrometheusRule"])


def test_the_alerts_link_to_the_repository_that_is_named() -> None:
    words = ("--set", "prometheusRule.repository=https://git.test/ours")
    kinds = rendered("--values", values_of("slack-and-pager"), *words)
    rules = [rule for group in kinds["PrometheusRule"]["spec"]["groups"] for rule in group["rules"]]
    starts = {rule["annotations"]["runbook_url"].partition("#")[0] for rule in rules}
    assert starts == {"https://git.test/ours/blob/main/docs/runbook.md"}


def test_what_is_there_already_is_used() -> None:
    words = ("existingConfigMap=theirs", "persistence.existingClaim=disk", "image.digest=sha256:" + "0" * 64)
    kinds = rendered(*(word for each in words for word in ("--set", each)))
    assert not kinds.keys() & {"ConfigMap", "PersistentVolumeClaim"}
    config, _, state = kinds["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert config["configMap"] == {"name": "theirs"}
    assert state["persistentVolumeClaim"] == {"claimName": "disk"}
    assert container_of(kinds["Deployment"])["image"].endswith(f"/clerk-watcher@sha256:{'0' * 64}")


def test_what_a_cluster_asks_for_is_passed_on(tmp_path: Path) -> None:
    added: dict[str, Any] = {
        "env": [{"name": "CLERK_API_KEY", "valueFrom": {"secretKeyRef": {"name": "theirs", "key": "api"}}}],
        "imagePullSecrets": [{"name": "pull"}],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "agents", "operator": "Exists"}],
        "persistence": {"storageClass": "fast"},
        "networkPolicy": {"egressPorts": [443, 587]},
        "ingress": {"annotations": {"cert-manager.io/cluster-issuer": "ours"}},
    }
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(added), encoding="utf-8")
    kinds = rendered("--values", values_of("slack-and-pager"), "--values", values)
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    assert [each["name"] for each in container_of(kinds["Deployment"])["env"]] == ["CLERK_API_KEY"]
    assert {key: pod[key] for key in ("imagePullSecrets", "nodeSelector", "tolerations")}.items() <= added.items()
    assert kinds["PersistentVolumeClaim"]["spec"]["storageClassName"] == "fast"
    assert [each["port"] for each in kinds["NetworkPolicy"]["spec"]["egress"][1]["ports"]] == [443, 587]
    assert kinds["Ingress"]["metadata"]["annotations"] == added["ingress"]["annotations"]
    for kind in kinds.keys() - OPERATOR:
        kubernetes_validate.validate(kinds[kind], VERSIONS[0], strict=True)


def test_without_a_policy_there_is_none() -> None:
    words = ("--set", "networkPolicy.enabled=false")
    assert "NetworkPolicy" not in rendered("--values", values_of("sqlite"), *words)


MISTAKES = {
    "config=null": "nothing to watch",
    "existingConfigMap=theirs": "both `config` and `existingConfigMap` are set",
    "config.store.url=postgresql://a/b": "put a PostgreSQL's URL into `postgresql.url`",
    "config.http.listen=:1": "`config.http.listen` is set by the chart",
    "ingress.enabled=true": "`config.http.public_url` must be https://watcher.example.com",
    "replicas=3": "additional properties 'replicas' not allowed",
    "postgresql.url=sqlite:///x": "postgresql/url",
    "image.digest=latest": "image/digest",
    "secrets={Wrong Name}": "secrets/0",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_what_would_be_right(mistake: str) -> None:
    assert MISTAKES[mistake] in refusal("--values", values_of("sqlite"), "--set", mistake)


def test_the_schema_knows_each_value_and_no_other() -> None:
    assert SCHEMA["properties"].keys() - {"global"} == VALUES.keys()
    for name, block in SCHEMA["properties"].items():
        if "properties" in block:
            assert block["additionalProperties"] is False
            assert block["properties"].keys() == VALUES[name].keys()


def test_the_package_holds_rules_and_dashboard_and_installs_the_same(tmp_path: Path) -> None:
    run("helm", "package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("clerk-watcher-*.tgz")
    with tarfile.open(package) as archive:
        assert all(member.isfile() for member in archive.getmembers())
        assert not any("/examples/" in name for name in archive.getnames())
    words = ("--values", values_of("slack-and-pager"))
    assert rendered(*words, chart=package) == rendered(*words)


def test_the_notes_lead_to_logs_and_pages() -> None:
    words = ("--values", values_of("slack-and-pager"), "--dry-run=client")
    notes = run("helm", "install", "eu", CHART, *words).partition("NOTES:")[2]
    assert "logs --selector app.kubernetes.io/instance=eu,app.kubernetes.io/name=clerk-watcher" in notes
    assert "port-forward service/eu-clerk-watcher 8080" in notes
    assert "https://watcher.example.com/" in notes


def test_the_chart_is_of_the_version_that_kustomize_installs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    (image,) = yaml.safe_load((FOLDER / "base/kustomization.yaml").read_text(encoding="utf-8"))["images"]
    assert chart["version"] == chart["appVersion"] == image["newTag"]
