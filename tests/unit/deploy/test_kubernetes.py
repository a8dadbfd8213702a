"""The manifests: right by the schemas of Kubernetes, whole in themselves, and true of the program and its image."""

import json
import re
import shutil
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from aiohttp import web
from deployment import DEPLOY, DOCKERFILE, ENDING_S, ROOT, SECRETS, check, image_variables, needs_helm, run
from unit.conftest import Command
from yarl import URL

from watcher.config.files import DEFAULTS, STORE_VARIABLE, SYSTEM_PLACE
from watcher.config.models import Settings
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.web.access import PROBES
from watcher.web.health import Checks, health_routes
from watcher.web.pages import page_routes
from watcher.web.routes import api_routes

Manifest = dict[str, Any]

FOLDER = DEPLOY / "kubernetes"
CONFIG = FOLDER / "base" / "watcher.yaml"

VERSIONS = [f"1.{minor}" for minor in range(27, int(kubernetes_validate.latest_version().split(".")[1]) + 1)]
"""Of Kubernetes: from the oldest that docs/kustomize.md names to the newest that is known here."""

OVERLAYS = ("sqlite", "postgres", "slack-and-pager")

by_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def read(path: Path) -> Manifest:
    manifest: Manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    return manifest


@cache
def built(overlay: str, folder: Path = FOLDER) -> dict[str, Manifest]:
    """Return what would be applied, by kind."""
    return by_kind(run("kubectl", "kustomize", folder / overlay))


def by_kind(text: str) -> dict[str, Manifest]:
    manifests = list(yaml.safe_load_all(text))
    kinds: dict[str, Manifest] = {manifest["kind"]: manifest for manifest in manifests}
    assert len(kinds) == len(manifests)
    return kinds


def container_of(deployment: Manifest) -> Manifest:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


DEPLOYMENT = read(FOLDER / "base/deployment.yaml")
POD: Manifest = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = container_of(DEPLOYMENT)
LABELS: dict[str, str] = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]


@pytest.mark.ci
@needs_helm
@by_overlay
@pytest.mark.parametrize("version", VERSIONS)
def test_what_an_overlay_comes_to_is_as_its_schemas_ask(overlay: str, version: str) -> None:
    for manifest in built(overlay).values():
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("folder", ["base", "ingress", "prometheus", *OVERLAYS])
def test_a_kustomization_names_every_file_beside_it(folder: str) -> None:
    kustomization = read(FOLDER / folder / "kustomization.yaml")
    patches = [patch["path"] for patch in kustomization.get("patches", [])]
    generated = [name for made in kustomization.get("configMapGenerator", []) for name in made["files"]]
    named = {*kustomization["resources"], *patches, *generated} - {"../base", "../sqlite"}
    beside = {path.name for path in (FOLDER / folder).glob("*.yaml")}
    assert named == beside - {"kustomization.yaml", "secret.example.yaml"}


def test_image_ports_and_configuration_are_swapped_in_place() -> None:
    (made,) = read(FOLDER / "base/kustomization.yaml")["configMapGenerator"]
    assert made["options"] == {"disableNameSuffixHash": True}
    (volume,) = (volume for volume in POD["volumes"] if "configMap" in volume)
    assert volume["configMap"]["name"] == made["name"]
    (mount,) = (mount for mount in CONTAINER["volumeMounts"] if mount["name"] == volume["name"])
    assert set(mount) == {"name", "mountPath", "readOnly"}  # a subPath would never be swapped
    assert Path(mount["mountPath"]) / made["files"][0] == SYSTEM_PLACE
    (image,) = read(FOLDER / "base/kustomization.yaml")["images"]
    assert f"$(DOCKER) build --tag {CONTAINER['image']} " in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert image["name"] == CONTAINER["image"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert image["newTag"] == project["version"]
    (port,) = CONTAINER["ports"]
    assert f"EXPOSE {port['containerPort']}\n" in DOCKERFILE
    assert image_variables()["WATCHER_HTTP_LISTEN"] == f"0.0.0.0:{port['containerPort']}"
    assert read(FOLDER / "base/service.yaml")["spec"]["ports"][0]["targetPort"] == port["name"]
    (ingress,) = read(FOLDER / "base/networkpolicy.yaml")["spec"]["ingress"]
    assert [allowed["port"] for allowed in ingress["ports"]] == [port["name"]]


async def test_the_probes_ask_pages_that_there_are() -> None:
    async def none() -> tuple[str, ...]:
        return ()

    async def refresh() -> None: ...

    routes = health_routes(lambda: Checks(tuple, none, refresh), Metrics().text, clock=Clock())
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {get["path"] for get in probes.values()} <= {route.path for route in routes}
    assert {name: get["path"] for name, get in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",  # a store that cannot be written is no reason to restart
        "readiness": "/readyz",
    }
    assert {get["port"] for get in probes.values()} == {CONTAINER["ports"][0]["name"]}


def test_the_pod_is_what_the_restricted_standard_allows_and_is_not_killed_while_draining() -> None:
    uid = int(re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)[0])
    context = POD["securityContext"]
    assert context["runAsNonRoot"] is True
    assert {context["runAsUser"], context["runAsGroup"], context["fsGroup"]} == {uid}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    assert POD["terminationGracePeriodSeconds"] > ENDING_S


def test_the_secrets_that_are_asked_for_are_those_of_the_examples_which_hold_none() -> None:
    examples = {path.parent.name: read(path) for path in FOLDER.rglob("secret.example.yaml")}
    assert {value for example in examples.values() for value in example["stringData"].values()} == {"REPLACE_ME"}
    (volume,) = (volume["secret"] for volume in POD["volumes"] if "secret" in volume)
    (mount,) = (mount for mount in CONTAINER["volumeMounts"] if mount["mountPath"].startswith("/run/secrets/"))
    for folder, config in (("kubernetes", CONFIG), ("slack-and-pager", FOLDER / "slack-and-pager/watcher.yaml")):
        keys = re.findall(rf"{mount['mountPath']}/(\w+)(?: +#.*)?$", config.read_text("utf-8"), re.MULTILINE)
        example = examples[folder]
        assert volume["secretName"] == example["metadata"]["name"]
        assert [*example["stringData"]] == keys
        assert set(keys) < set(SECRETS)
        assert read(config)["http"] == {"token_file": f"{mount['mountPath']}/watcher_token"}
    patch, example = read(FOLDER / "postgres/deployment.yaml"), examples["postgres"]
    (volume,) = (each["secret"] for each in patch["spec"]["template"]["spec"]["volumes"])
    (mount,) = container_of(patch)["volumeMounts"]
    assert volume["secretName"] == example["metadata"]["name"]
    password_file = f"{mount['mountPath']}/{next(iter(example['stringData']))}"
    assert read(FOLDER / "postgres/watcher.yaml") == read(CONFIG) | {"store": {"password_file": password_file}}


def variables_of(deployment: Manifest) -> dict[str, Manifest]:
    return {variable["name"]: variable for variable in container_of(deployment).get("env", [])}


@by_overlay
def test_the_program_accepts_the_configuration_that_is_mounted(overlay: str, tmp_path: Path, command: Command) -> None:
    variables = variables_of(read(FOLDER / "postgres/deployment.yaml") if overlay == "postgres" else DEPLOYMENT)
    assert variables.keys() <= DEFAULTS.keys()
    config = CONFIG if overlay == "sqlite" else FOLDER / overlay / "watcher.yaml"
    with_url = tmp_path / "with_url.yaml"  # as with the component for an Ingress
    with_url.write_text(config.read_text(encoding="utf-8").replace("# public_url:", "public_url:"), encoding="utf-8")
    assert "public_url" in read(with_url)["http"]
    for each in (config, with_url):
        check(each, tmp_path, {name: variable["value"] for name, variable in variables.items()}, command)


@needs_helm
@by_overlay
def test_service_budget_and_policy_are_about_these_pods_which_may_reach_what_they_need_alone(overlay: str) -> None:
    kinds = built(overlay)
    policy = kinds["NetworkPolicy"]["spec"]
    assert kinds["Service"]["spec"]["selector"] == LABELS
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == LABELS
    assert policy["podSelector"]["matchLabels"] == LABELS
    assert kinds["Deployment"]["spec"]["selector"]["matchLabels"] == LABELS
    spread = kinds["Deployment"]["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert [each["labelSelector"]["matchLabels"] for each in spread] == [LABELS, LABELS]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    open_ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    sinks = {URL(sink["url"]).port for sink in read(CONFIG)["sinks"].values()}  # those of Slack and PagerDuty too
    store = {5432} if STORE_VARIABLE in variables_of(kinds["Deployment"]) else set()
    assert open_ports == {53} | sinks | store


@needs_helm
def test_on_sqlite_one_replica_and_on_postgres_two_are_always_there() -> None:
    kinds = built("sqlite")
    spec, container = kinds["Deployment"]["spec"], container_of(kinds["Deployment"])
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    (volume,) = (each for each in spec["template"]["spec"]["volumes"] if "persistentVolumeClaim" in each)
    claim = kinds["PersistentVolumeClaim"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == volume["name"])
    assert f"VOLUME {mount['mountPath']}\n" in DOCKERFILE
    assert STORE_VARIABLE not in variables_of(kinds["Deployment"])  # the image's, which is on that volume
    assert image_variables()[STORE_VARIABLE].startswith(f"sqlite:///{mount['mountPath']}/")
    kinds = built("postgres")
    spec = kinds["Deployment"]["spec"]
    assert (spec["replicas"], kinds["PodDisruptionBudget"]["spec"]["maxUnavailable"]) == (3, 1)
    assert (spec["strategy"]["type"], spec["strategy"]["rollingUpdate"]["maxUnavailable"]) == ("RollingUpdate", 0)


def with_components(components: list[str], overlay: str, folder: Path) -> dict[str, Manifest]:
    """Return what would be applied of an overlay to which components were added, by kind."""
    copy = shutil.copytree(FOLDER, folder / "kubernetes")
    kustomization = copy / overlay / "kustomization.yaml"
    added = [f"../{component}" for component in components]
    kustomization.write_text(f"{kustomization.read_text('utf-8')}\ncomponents: {json.dumps(added)}\n", encoding="utf-8")
    return built(overlay, copy)


@needs_helm
@pytest.mark.parametrize("overlay", ["sqlite", "postgres"])
def test_with_its_component_prometheus_scrapes_each_pod_and_has_rules(overlay: str, tmp_path: Path) -> None:
    kinds = with_components(["prometheus"], overlay, tmp_path)
    monitor = kinds["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= kinds["Service"]["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == (kinds["Service"]["spec"]["ports"][0]["name"], "/metrics")
    rules = read(DEPLOY / "prometheus/rules.yaml")
    assert kinds["PrometheusRule"]["spec"] == rules
    job = kinds["Service"]["metadata"]["name"]  # as the operator names it
    assert f'up{{job="{job}"}}' in str(rules)


@pytest.mark.ci
@needs_helm
@by_overlay
@pytest.mark.parametrize("version", VERSIONS)
def test_with_its_component_an_ingress_leads_to_the_pages_over_tls(overlay: str, version: str, tmp_path: Path) -> None:
    kinds = with_components(["ingress"], overlay, tmp_path)
    for manifest in kinds.values():
        kubernetes_validate.validate(manifest, version, strict=True)
    ingress, service = kinds["Ingress"]["spec"], kinds["Service"]
    (rule,), (tls,) = ingress["rules"], ingress["tls"]
    assert tls["hosts"] == [rule["host"]]
    port = {"name": service["spec"]["ports"][0]["name"]}
    backend = {"service": {"name": service["metadata"]["name"], "port": port}}
    assert [path["backend"] for path in rule["http"]["paths"]] == [backend] * len(rule["http"]["paths"])
    sources = kinds["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert sources[:-1] == built(overlay)["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert [*sources[-1]] == ["namespaceSelector"]  # the controller's: without it no request would get through
    config = yaml.safe_load(kinds["ConfigMap"]["data"]["watcher.yaml"].replace("# public_url:", "public_url:"))
    assert config["http"]["public_url"] == f"https://{rule['host']}"


def test_the_ingress_leads_to_every_path_but_those_that_need_no_token() -> None:
    (rule,) = read(FOLDER / "ingress/ingress.yaml")["spec"]["rules"]
    led_to = {path["path"] if path["pathType"] == "Exact" else f"{path['path']}/" for path in rule["http"]["paths"]}
    routes = [*page_routes(lambda: None, Settings, Clock()), *api_routes(lambda: None)]
    paths = {route.path for route in routes if isinstance(route, web.RouteDef) and route.path != "/{rest:.*}"}
    assert {path for path in led_to if not any(f"{each}/".startswith(path) for each in paths)} == set()
    assert {path for path in paths if not any(_leads(start, path) for start in led_to)} == set()
    assert {path for path in PROBES if any(_leads(start, path) for start in led_to)} == set()


def _leads(start: str, path: str) -> bool:
    """Return whether a path of the Ingress, with a slash at its end if it is a prefix, leads to this one."""
    return f"{path}/".startswith(start) if start.endswith("/") and start != "/" else path == start


@needs_helm
def test_with_slack_and_a_pager_the_configuration_takes_the_place_of_the_one_of_the_base() -> None:
    text = (FOLDER / "slack-and-pager/watcher.yaml").read_text(encoding="utf-8")
    assert built("slack-and-pager")["ConfigMap"]["data"] == {"watcher.yaml": text}
