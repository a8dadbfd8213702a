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
from unit.conftest import Command
from unit.deploy.test_kubernetes import VERSIONS, Manifest, built, by_kind, container_of, with_components

CHART = DEPLOY / "helm" / "clerk-watcher"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
OTHERS = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}
"""What the Prometheus Operator and the Gateway API define, not Kubernetes."""

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


ASKED: list[tuple[str, Any, str, Any]] = [
    ("image.pullPolicy", "Always", "Deployment container imagePullPolicy", ...),
    ("image.tag", "1.2.3", "Deployment container image", f"{VALUES['image']['repository']}:1.2.3"),
    ("imagePullSecrets", [{"name": "pull"}], "Deployment pod imagePullSecrets", ...),
    ("nameOverride", "watch", "Service spec selector app.kubernetes.io/name", ...),
    ("nameOverride", "watch", "PrometheusRule spec groups 0 rules 0 expr", 'absent(up{job="watch"})'),
    ("fullnameOverride", "watch", "Deployment metadata name", ...),
    ("commonLabels", {"team": "ops"}, "Deployment template metadata labels", ...),
    ("deploymentAnnotations", {"a/b": "c"}, "Deployment metadata annotations", ...),
    ("podAnnotations", {"a/b": "c"}, "Deployment template metadata annotations", ...),
    ("podLabels", {"a/b": "c"}, "Deployment template metadata labels", ...),
    ("podSecurityContext", {"supplementalGroups": [7]}, "Deployment pod securityContext", ...),
    ("podSecurityContext.runAsUser", 1000, "Deployment pod securityContext runAsUser", ...),
    ("podSecurityContext.seLinuxOptions", {"level": "s0"}, "Deployment pod securityContext seLinuxOptions", ...),
    ("securityContext", {"runAsUser": 1000}, "Deployment container securityContext", ...),
    (
        "securityContext.readOnlyRootFilesystem",
        False,
        "Deployment container securityContext readOnlyRootFilesystem",
        ...,
    ),
    ("serviceAccount.create", True, "ServiceAccount metadata name", "clerk-watcher"),
    ("serviceAccount.name", "theirs", "Deployment pod serviceAccountName", ...),
    ("serviceAccount.automount", True, "Deployment pod automountServiceAccountToken", ...),
    ("nodeSelector", {"disk": "ssd"}, "Deployment pod nodeSelector", ...),
    ("tolerations", [{"key": "a"}], "Deployment pod tolerations", ...),
    ("affinity", {"nodeAffinity": {}}, "Deployment pod affinity", ...),
    (
        "topologySpreadConstraints",
        [{"topologyKey": "rack", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}],
        "Deployment pod topologySpreadConstraints",
        ...,
    ),
    ("priorityClassName", "high", "Deployment pod priorityClassName", ...),
    ("runtimeClassName", "gvisor", "Deployment pod runtimeClassName", ...),
    ("schedulerName", "other", "Deployment pod schedulerName", ...),
    ("hostAliases", [{"ip": "10.0.0.1", "hostnames": ["db"]}], "Deployment pod hostAliases", ...),
    ("dnsPolicy", "ClusterFirstWithHostNet", "Deployment pod dnsPolicy", ...),
    ("dnsConfig", {"nameservers": ["10.0.0.1"]}, "Deployment pod dnsConfig", ...),
    ("terminationGracePeriodSeconds", 60, "Deployment pod terminationGracePeriodSeconds", ...),
    ("revisionHistoryLimit", 0, "Deployment spec revisionHistoryLimit", ...),
    ("resources.limits.cpu", "1", "Deployment container resources limits cpu", ...),
    ("env", [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}], "Deployment container env", ...),
    ("envFrom", [{"secretRef": {"name": "s"}}], "Deployment container envFrom", ...),
    ("extraVolumes", [{"name": "ca", "secret": {"secretName": "ca"}}], "Deployment pod volumes", ...),
    ("extraVolumeMounts", [{"name": "ca", "mountPath": "/ca"}], "Deployment container volumeMounts", ...),
    ("extraInitContainers", [{"name": "wait", "image": "wait"}], "Deployment pod initContainers", ...),
    ("extraContainers", [{"name": "proxy", "image": "proxy"}], "Deployment pod containers", ...),
    ("startupProbe.failureThreshold", 300, "Deployment container startupProbe failureThreshold", ...),
    ("livenessProbe.timeoutSeconds", 9, "Deployment container livenessProbe timeoutSeconds", ...),
    ("readinessProbe.periodSeconds", 9, "Deployment container readinessProbe periodSeconds", ...),
    ("lifecycle", {"preStop": {"exec": {"command": ["sleep", "5"]}}}, "Deployment container lifecycle", ...),
    ("persistence.enabled", False, "Deployment pod volumes", [{"name": "state", "emptyDir": {}}]),
    ("persistence.size", "9Gi", "PersistentVolumeClaim spec resources requests storage", ...),
    ("persistence.storageClass", "fast", "PersistentVolumeClaim spec storageClassName", ...),
    ("persistence.storageClass", "-", "PersistentVolumeClaim spec storageClassName", ""),
    ("persistence.accessModes", ["ReadWriteOncePod"], "PersistentVolumeClaim spec accessModes", ...),
    ("persistence.annotations", {"a/b": "c"}, "PersistentVolumeClaim metadata annotations", ...),
    ("podDisruptionBudget.maxUnavailable", "50%", "PodDisruptionBudget spec maxUnavailable", ...),
    ("podDisruptionBudget.minAvailable", 1, "PodDisruptionBudget spec minAvailable", ...),
    ("service.type", "NodePort", "Service spec type", ...),
    ("service.annotations", {"a/b": "c"}, "Service metadata annotations", ...),
    ("service.labels", {"a/b": "c"}, "Service metadata labels", ...),
    ("service.loadBalancerSourceRanges", ["10.0.0.0/8"], "Service spec loadBalancerSourceRanges", ...),
    ("ingress.annotations", {"a/b": "c"}, "Ingress metadata annotations", ...),
    ("ingress.labels", {"a/b": "c"}, "Ingress metadata labels", ...),
    ("ingress.className", "traefik", "Ingress spec ingressClassName", ...),
    ("ingress.tls", [{"secretName": "s", "hosts": ["watcher.example.com"]}], "Ingress spec tls", ...),
    ("serviceMonitor.relabelings", [{"action": "drop"}], "ServiceMonitor endpoint relabelings", ...),
    ("serviceMonitor.metricRelabelings", [{"action": "drop"}], "ServiceMonitor endpoint metricRelabelings", ...),
    ("serviceMonitor.scrapeTimeout", "9s", "ServiceMonitor endpoint scrapeTimeout", ...),
    ("serviceMonitor.namespace", "monitoring", "ServiceMonitor metadata namespace", ...),
    ("serviceMonitor.labels", {"release": "prometheus"}, "ServiceMonitor metadata labels", ...),
    ("grafanaDashboard.annotations", {"folder": "Ops"}, "dashboard metadata annotations", ...),
]
"""What people set: the value, where it has to arrive, and as what. Three dots are the value itself, or contained."""

BEYOND = {
    "template": "spec template",
    "pod": "spec template spec",
    "container": "spec template spec containers 0",
    "endpoint": "spec endpoints 0",
}


def part(kinds: dict[str, Manifest], where: str) -> Any:
    """Return what stands at a place such as `Deployment pod affinity`."""
    kind, short, *rest = where.split()
    node: Any = kinds[kind]
    for key in [*BEYOND.get(short, short).split(), *rest]:
        node = node[int(key) if isinstance(node, list) else key]
    return node


def nested(name: str, value: Any) -> dict[str, Any]:
    """Return values that set the one of a dotted name."""
    for key in reversed(name.split(".")):
        value = {key: value}
    return dict(value)


def with_values(tmp_path: Path, values: dict[str, Any], example: str = "slack-and-pager") -> dict[str, Manifest]:
    """Return what an example installs with further values. Kubernetes has no mistake to find in it."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    kinds = rendered("--values", values_of(example), "--values", file)
    for kind in kinds.keys() - OTHERS:
        kubernetes_validate.validate(kinds[kind], VERSIONS[-1], strict=True)
    return kinds


@pytest.mark.parametrize(("name", "value", "where", "wanted"), ASKED)
def test_what_people_set_arrives(name: str, value: Any, where: str, wanted: Any, tmp_path: Path) -> None:
    found = part(with_values(tmp_path, nested(name, value)), where)
    wanted = value if wanted is ... else wanted
    if isinstance(wanted, dict):
        assert wanted.items() <= found.items()
    elif isinstance(wanted, list):
        assert [each for each in wanted if each not in found] == []
    else:
        assert found == wanted


def test_a_platform_gives_the_ids(tmp_path: Path) -> None:
    ids = dict.fromkeys(["runAsUser", "runAsGroup", "fsGroup"])
    kinds = with_values(tmp_path, {"podSecurityContext": ids})
    assert part(kinds, "Deployment pod securityContext") == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert "65532" not in yaml.safe_dump(kinds["Deployment"])


@pytest.mark.parametrize("name", [name for name in VALUES if name not in {"config", "existingConfigMap"}])
def test_null_takes_a_default_away_or_is_refused(name: str, tmp_path: Path) -> None:
    if name in SCHEMA["required"]:
        assert f"missing property '{name}'" in refusal("--values", values_of("sqlite"), "--set", f"{name}=null")
    else:
        kinds = with_values(tmp_path, {name: None})
        pod, container = part(kinds, "Deployment pod"), part(kinds, "Deployment container")
        holder = container if name in {"securityContext", "resources"} or name.endswith("Probe") else pod
        assert name.replace("podSecurity", "security") not in holder


def test_several_hosts_have_the_same_paths_and_the_certificate_may_be_the_controllers(tmp_path: Path) -> None:
    path = {"path": "/", "pathType": "Prefix"}
    other = {"host": "b.test", "paths": [path]}
    ingress = {"hosts": [{"host": "a.test"}, other], "tlsSecret": "", "className": ""}
    http = {"public_url": "https://a.test", "names": ["b.test"]}
    before = part(with_values(tmp_path, {}), "Ingress spec rules 0 http paths")
    kinds = with_values(tmp_path, {"config": {"http": http}, "ingress": ingress})
    spec = kinds["Ingress"]["spec"]
    assert spec["tls"] == [{"hosts": ["a.test", "b.test"]}]
    assert "ingressClassName" not in spec
    first, second = spec["rules"]
    assert first == {"host": "a.test", "http": {"paths": before}}
    assert second == {"host": "b.test", "http": {"paths": [{**path, "backend": before[0]["backend"]}]}}


ROUTE = {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}], "hostnames": ["a.test"]}
AT_A = {"config": {"http": {"public_url": "https://a.test"}}, "ingress": {"enabled": False}}


def test_a_route_leads_from_a_gateway_to_the_paths_of_the_ingress(tmp_path: Path) -> None:
    (rule,) = with_values(tmp_path, {})["Ingress"]["spec"]["rules"]
    kinds = with_values(tmp_path, AT_A | {"httpRoute": ROUTE | {"gatewayNamespace": "gateways"}})
    spec = kinds["HTTPRoute"]["spec"]
    assert "Ingress" not in kinds
    assert (spec["parentRefs"], spec["hostnames"]) == (ROUTE["parentRefs"], ROUTE["hostnames"])
    names = {"PathPrefix": "Prefix", "Exact": "Exact"}
    matches = [each["matches"][0]["path"] for each in spec["rules"]]
    assert [(each["value"], names[each["type"]]) for each in matches] == [
        (path["path"], path["pathType"]) for path in rule["http"]["paths"]
    ]
    assert len(matches) <= 16  # as many rules as a route may have
    service = kinds["Service"]
    backend = [{"name": service["metadata"]["name"], "port": service["spec"]["ports"][0]["port"]}]
    assert [each["backendRefs"] for each in spec["rules"]] == [backend] * len(matches)
    gateways = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}
    assert gateways in kinds["NetworkPolicy"]["spec"]["ingress"][0]["from"]


def test_rules_of_a_route_may_be_ones_own(tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = [
        {"filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": "b.test"}}]},
        {"backendRefs": [{"name": "other", "port": 1}]},
    ]
    found = with_values(tmp_path, AT_A | {"httpRoute": ROUTE | {"rules": rules}})["HTTPRoute"]["spec"]["rules"]
    assert found[0] == {**rules[0], "backendRefs": [{"name": "clerk-watcher", "port": 8080}]}
    assert found[1] == rules[1]


def test_further_objects_are_installed_and_their_text_is_a_template(tmp_path: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "{{ .Release.Name }}-more"}}
    assert with_values(tmp_path, {"extraObjects": [secret]})["Secret"]["metadata"]["name"] == "clerk-watcher-more"


TERM = {"key": "other-key", "operator": "In", "values": ["other-value"]}
OTHER: dict[str, Any] = {
    "config": {"http": {"public_url": "https://other.test", "names": ["more.test"]}},
    "configFiles": {"acme.yaml": {"watch": [{"pipeline": "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"}]}},
    "secrets": ["clerk-watcher", "other-secret"],
    "env": [{"name": "OTHER_NAME", "value": "other-variable"}],
    "envFrom": [{"secretRef": {"name": "other-variables"}}],
    "image": {"repository": "other.test/image", "tag": "other-tag", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "other-pull"}],
    "nameOverride": "other-name",
    "fullnameOverride": "other-fullname",
    "commonLabels": {"common": "other-label"},
    "deploymentAnnotations": {"a": "other-deployment"},
    "podLabels": {"pod": "other-pod-label"},
    "podAnnotations": {"a": "other-pod"},
    "resources": {"requests": {"cpu": "101m", "memory": "193Mi"}, "limits": {"memory": "513Mi"}},
    "podSecurityContext": {"runAsUser": 65501, "runAsGroup": 65502, "fsGroup": 65503, "supplementalGroups": [65504]},
    "securityContext": {"runAsUser": 65505},
    "serviceAccount": {"create": True, "name": "other-account", "annotations": {"a": "other-role"}, "automount": True},
    "nodeSelector": {"disk": "other-disk"},
    "tolerations": [{"key": "other-taint"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [TERM]}]}
        }
    },
    "topologySpreadConstraints": [{"topologyKey": "other-rack", "maxSkew": 17, "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "other-priority",
    "runtimeClassName": "other-runtime",
    "schedulerName": "other-scheduler",
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["other-alias"]}],
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.53"], "options": [{"name": "ndots", "value": "2"}]},
    "extraVolumes": [{"name": "other-volume", "configMap": {"name": "other-map"}}],
    "extraVolumeMounts": [{"name": "other-volume", "mountPath": "/other"}],
    "extraInitContainers": [{"name": "other-init", "image": "other.test/init"}],
    "extraContainers": [{"name": "other-container", "image": "other.test/container"}],
    "startupProbe": {"failureThreshold": 151},
    "livenessProbe": {"periodSeconds": 31},
    "readinessProbe": {"periodSeconds": 51},
    "lifecycle": {"preStop": {"exec": {"command": ["other-command"]}}},
    "terminationGracePeriodSeconds": 152,
    "revisionHistoryLimit": 153,
    "podDisruptionBudget": {"maxUnavailable": "34%"},
    "service": {
        "type": "LoadBalancer",
        "port": 8081,
        "nodePort": 30001,
        "annotations": {"a": "other-service"},
        "labels": {"a": "other-service-label"},
        "externalTrafficPolicy": "Local",
        "loadBalancerClass": "other.test/balancer",
        "loadBalancerIP": "10.0.0.2",
        "loadBalancerSourceRanges": ["10.0.0.0/9"],
    },
    "networkPolicy": {"from": [{"podSelector": {"matchLabels": {"a": "other-from"}}}], "egressPorts": [588]},
    "ingress": {
        "annotations": {"a": "other-note"},
        "labels": {"a": "other-ingress-label"},
        "className": "other-class",
        "hosts": [{"host": "other.test"}, {"host": "more.test", "paths": [{"path": "/more", "pathType": "Exact"}]}],
        "tlsSecret": "other-tls",
        "controllerNamespace": "other-controller",
    },
    "httpRoute": {
        "enabled": True,
        "annotations": {"a": "other-route"},
        "labels": {"a": "other-route-label"},
        "parentRefs": [{"name": "other-gateway"}],
        "hostnames": ["more.test", "other.test"],
        "rules": [{"matches": [{"path": {"type": "Exact", "value": "/other-path"}}]}],
        "gatewayNamespace": "other-gateways",
    },
    "serviceMonitor": {
        "namespace": "other-monitoring",
        "interval": "31s",
        "scrapeTimeout": "29s",
        "labels": {"a": "other-monitor"},
        "relabelings": [{"targetLabel": "other-relabeling"}],
        "metricRelabelings": [{"targetLabel": "other-metric"}],
    },
    "prometheusRule": {
        "namespace": "other-rules",
        "labels": {"a": "other-rule"},
        "repository": "https://other.test/repository",
    },
    "grafanaDashboard": {"labels": {"a": "other-dashboard"}, "annotations": {"a": "other-folder"}},
    "extraObjects": [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other-object"}}],
}
"""For each value another than its default."""

UNLIKE = {"ingress": {"host", "tls"}, "podDisruptionBudget": {"minAvailable"}, "image": {"digest"}}
"""Values that take the place of one above: tested by themselves."""

STORES: dict[str, dict[str, Any]] = {
    "a new volume": {
        "persistence": {
            "size": "6Gi",
            "storageClass": "other-storage",
            "accessModes": ["ReadWriteOncePod"],
            "annotations": {"a": "other-claim"},
        }
    },
    "a volume that is there": {"persistence": {"existingClaim": "other-claim"}},
    "PostgreSQL": {"postgresql": {"url": "postgresql://other.test/database", "replicas": 47}},
}


def leaves(node: Any) -> Iterator[str]:
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from leaves(child)
    else:
        yield str(node).lower() if isinstance(node, bool) else str(node)


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
    for kind in kinds.keys() - OTHERS:
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


def test_further_files_are_one_configuration_with_the_first(tmp_path: Path, command: Command) -> None:
    pipeline = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
    acme = {
        "accounts": {"acme": {"api_key": "k"}},
        "watch": [{"pipeline": pipeline, "account": "acme"}],
        "sinks": {"acme": {"type": "stdout", "events": ["execution.*"]}},
    }
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"config": {"polling": {"lost_after": 4}}, "configFiles": {"acme.yaml": acme}}))
    data = rendered("--values", values)["ConfigMap"]["data"]
    assert {name: yaml.safe_load(text) for name, text in data.items()} == {
        "watcher.yaml": {"polling": {"lost_after": 4}},
        "acme.yaml": acme,
    }
    folder = tmp_path / "etc"
    folder.mkdir()
    for name, text in data.items():
        (folder / name).write_text(text)
    assert command("check", "--config", str(folder)).code == 0


TWO_HOSTS = "ingress.enabled=true,ingress.hosts[0].host=a.test,ingress.hosts[1].host=b.test"
MISTAKES = {
    "config=null": "nothing to watch",
    "existingConfigMap=theirs": "both `config` and `existingConfigMap` are set",
    "config=null,existingConfigMap=x,configFiles.a\\.yaml.watch=": "both `configFiles` and `existingConfigMap` are set",
    "configFiles.watcher\\.yaml.a=1": "watcher.yaml",
    "configFiles.acme.a=1": "'acme' does not match pattern",
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
    "ingress.enabled=true,ingress.hosts[0].host=a.test": "must be https://a.test, as `ingress.hosts`",
    f"{TWO_HOSTS},config.http.public_url=https://a.test": "must have b.test, one of `ingress.hosts`: else the pages",
    "httpRoute.enabled=true,httpRoute.hostnames={a.test}": "httpRoute/parentRefs",
    "httpRoute.enabled=true,httpRoute.hostnames={a.test},httpRoute.parentRefs[0].name=g": (
        "`config.http.public_url` must be https://a.test, as `httpRoute.hostnames`"
    ),
    "image.pullPolicy=always": "image/pullPolicy",
    "service.type=Loadbalancer": "service/type",
    "persistence.accessModes=ReadWriteOnce": "persistence/accessModes",
    "image.digest=latest": "image/digest",
    "secrets={Wrong Name}": "secrets/0",
}


@pytest.mark.parametrize(
    "block", ["", *(name for name in VALUES if "additionalProperties" in SCHEMA["properties"][name])]
)
def test_a_misspelt_value_is_refused(block: str) -> None:
    name = f"{block}.misspelt".lstrip(".")
    assert "additional properties 'misspelt' not allowed" in refusal(
        "--values", values_of("sqlite"), "--set", f"{name}=1"
    )


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_what_would_be_right(mistake: str) -> None:
    assert MISTAKES[mistake] in refusal("--values", values_of("sqlite"), "--set", mistake)


def test_no_value_is_left_out_and_the_schema_knows_each() -> None:
    persistence = {**STORES["a new volume"]["persistence"], "existingClaim": ""}
    named = OTHER | STORES["PostgreSQL"] | {"persistence": persistence}
    assert named.keys() == VALUES.keys() - {"existingConfigMap"}
    assert SCHEMA["properties"].keys() - {"global"} == VALUES.keys()
    for name, block in SCHEMA["properties"].items():
        if "additionalProperties" in block:
            assert block["additionalProperties"] is False
            assert block["properties"].keys() == {*block["required"]} == VALUES[name].keys()
            assert named[name].keys() | UNLIKE.get(name, set()) | {"enabled"} == VALUES[name].keys() | {"enabled"}


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
