"""The chart: what Helm renders from it with which values, and which values it refuses."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller import options as controller_options
from speaker import options as speaker_options
from tests.deploy.chart import CHART, NAMESPACE, ROOT, VALUES, helm, pods, rendered, without_definitions
from tests.kubernetes.metallb import SUMS, chart, manifest

pytestmark = pytest.mark.real

KINDS = {
    "defaults": (),
    "metallb": ("--values", str(VALUES / "metallb.yaml")),
    "everything": ("--values", str(VALUES / "everything.yaml")),
}
"""Values of three kinds, as Helm's arguments."""


def only(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def kinds(objects: list[dict[str, Any]]) -> set[str]:
    return {each["kind"] for each in objects}


def test_the_manifests_are_rendered_from_the_chart(tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts/manifest", tmp_path], check=True)
    for made in tmp_path.iterdir():
        assert made.read_text() == (ROOT / "deploy" / made.name).read_text(), "run scripts/manifest"


@pytest.mark.parametrize("values", KINDS.values(), ids=KINDS)
def test_helm_finds_nothing_to_complain_of(values: tuple[str, ...]) -> None:
    done = helm("lint", "--strict", str(CHART), *values)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


def test_the_definitions_are_those_of_crds() -> None:
    theirs = {path.read_text().strip() for path in (ROOT / "crds").glob("*.yaml")}
    done = helm("template", "berthlb", str(CHART), "--show-only", "templates/crds.yaml")
    ours = {each.partition("\n")[2].strip() for each in done.stdout.split("---\n") if each.strip()}
    assert ours == theirs
    assert "CustomResourceDefinition" not in kinds(without_definitions())


def test_an_uninstall_leaves_every_definition() -> None:
    """Helm looks at what the release has stored, not at the object."""
    for path in (ROOT / "crds").glob("*.yaml"):
        annotations = yaml.safe_load(path.read_text())["metadata"]["annotations"]
        assert annotations["helm.sh/resource-policy"] == "keep", path


# ------------------------------------------------------------------------ MetalLB's values


@pytest.mark.parametrize("version", SUMS)
def test_every_value_of_metallbs_chart_is_accepted(version: str) -> None:
    """Its whole file of defaults, as many people keep it: the images are ours all the same."""
    templates = pods(without_definitions("--values", str(chart(version) / "values.yaml")))
    images = [each["spec"]["containers"][0]["image"] for each in templates.values()]
    assert sorted(images) == ["berthlb/controller:0.1.0", "berthlb/speaker:0.1.0"]


def test_metallbs_values_do_here_what_they_do_there() -> None:
    objects = without_definitions(*KINDS["metallb"])
    templates = pods(objects)
    for daemon, template in templates.items():
        (container,) = template["spec"]["containers"]
        assert container["image"] == f"berthlb/{daemon}:0.1.0"
        assert "--lb-class=metallb.example/lan" in container["args"]
        assert template["spec"]["imagePullSecrets"] == [{"name": "mirror"}]
        assert template["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
    controller, speaker = (templates[each]["spec"] for each in ("controller", "speaker"))
    assert controller["nodeSelector"] == {"kubernetes.io/os": "linux", "role": "infra"}
    assert controller["tolerations"] == [
        {"key": "dedicated", "operator": "Equal", "value": "infra", "effect": "NoSchedule"}
    ]
    assert templates["controller"]["metadata"]["annotations"]["example.org/team"] == "network"
    assert templates["controller"]["metadata"]["labels"]["team"] == "network"
    assert controller["containers"][0]["imagePullPolicy"] == "Always"
    assert controller["containers"][0]["livenessProbe"]["initialDelaySeconds"] == 10
    assert "--ignore-exclude-lb" in speaker["containers"][0]["args"]
    assert speaker["containers"][0]["resources"]["limits"] == {"memory": "200Mi"}
    assert "NetworkPolicy" in kinds(objects)


def test_everything_that_can_be_turned_on_is_on() -> None:
    objects = without_definitions(*KINDS["everything"])
    assert kinds(objects) == {
        *("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
        *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
        *("ConfigMap", "Deployment", "DaemonSet", "NetworkPolicy", "Service", "ServiceMonitor", "PrometheusRule"),
    }
    for template in pods(objects).values():
        container, beside = template["spec"]["containers"]
        assert beside["name"] == "beside"
        assert container["image"] == "registry.example/berthlb:0.1.0-mine"
        assert "--observe" in container["args"]
        assert template["spec"]["runtimeClassName"] == "runc"
    speaker = pods(objects)["speaker"]["spec"]["containers"][0]
    assert speaker["securityContext"]["capabilities"]["add"] == ["NET_RAW", "SYS_NICE", "IPC_LOCK"]
    assert {"--gratuitous-limit=10", "--no-address-probes", "--restart-mode=release"} <= set(speaker["args"])
    assert only(objects, "DaemonSet")["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert only(objects, "DaemonSet")["metadata"]["name"] == "lan-berth-speaker"
    rules = only(objects, "PrometheusRule")["spec"]["groups"][0]["rules"]
    pool_rules = {each["alert"]: each["expr"] for each in rules if each["alert"].startswith("BerthLBPool")}
    assert all('pool!~"test-.*"' in each for each in pool_rules.values())
    assert {"Mine", "BerthLBPoolExhausted"} <= {each["alert"] for each in rules}
    severities = {each["alert"]: each["labels"]["severity"] for each in rules if "labels" in each}
    assert severities["BerthLBConfigurationNotInForce"] == "page"


@pytest.mark.parametrize("values", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("own", ["192.0.2.7", "2001:db8::7"])
def test_the_daemons_understand_what_the_values_say(values: tuple[str, ...], own: str) -> None:
    """In a cluster of either family: the addresses of pods and nodes are of it."""
    fields = {"NODE_NAME": "node-1", "NAMESPACE": NAMESPACE, "POD_IP": own, "HOST_IP": own}
    for daemon, template in pods(without_definitions(*values)).items():
        given = template["spec"]["containers"][0]["args"]
        arguments = [re.sub(r"\$\((\w+)\)", lambda found: fields[found[1]], each) for each in given]
        options = (controller_options if daemon == "controller" else speaker_options).parse(arguments)
        assert {each.host for each in options.listen} <= {own, "127.0.0.1"}


@pytest.mark.parametrize("values", KINDS.values(), ids=KINDS)
def test_nothing_can_block_a_drain(values: tuple[str, ...]) -> None:
    """Both pods of a budget may be on the last node that is left. While none runs, every address goes on answering."""
    assert "PodDisruptionBudget" not in kinds(without_definitions(*values))


@pytest.mark.parametrize("version", SUMS)
def test_our_speaker_runs_beside_metallbs(version: str) -> None:
    """No two pods of a node can have the same port of it; a port of a pod in the node's network is one of the node."""
    theirs = node_ports(list(yaml.safe_load_all(manifest(version).read_text())))
    assert theirs
    assert node_ports(without_definitions()).isdisjoint(theirs)


def node_ports(objects: list[dict[str, Any]]) -> set[tuple[str, int]]:
    (spec,) = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "DaemonSet"]
    assert spec["hostNetwork"]
    ports = [port for each in spec["containers"] for port in each.get("ports", [])]
    return {(port.get("protocol", "TCP"), port["containerPort"]) for port in ports}


@pytest.mark.parametrize("scraped", ["scrapeAnnotations", "podMonitor.enabled", "serviceMonitor.enabled", ""])
def test_the_lan_reads_the_speakers_metrics_only_where_prometheus_is_to(scraped: str) -> None:
    more = ("--set", f"prometheus.{scraped}=true") if scraped else ()
    objects = without_definitions("--set", "prometheus.rbacPrometheus=false", *more)
    arguments = pods(objects)["speaker"]["spec"]["containers"][0]["args"]
    assert ("--listen=[$(HOST_IP)]:7949" in arguments) == bool(scraped)
    assert "--listen=127.0.0.1:7949" in arguments


@pytest.mark.parametrize(
    ("values", "patterns"),
    [
        ("enabled=false", []),
        ("patterns={^veth.*,^br[0-9]+$}", ["^veth.*", "^br[0-9]+$"]),
        ("enabled=true", None),
    ],
)
def test_the_list_of_excluded_interfaces_is_made_only_where_the_values_have_one(
    values: str, patterns: list[str] | None
) -> None:
    """Where they have none, a ConfigMap that the cluster has from MetalLB counts on, and no release owns it."""
    made = [
        each
        for each in without_definitions("--set", f"speaker.excludeInterfaces.{values}")
        if each["kind"] == "ConfigMap"
    ]
    read = [yaml.safe_load(each["data"]["excludel2.yaml"])["announcedInterfacesToExclude"] for each in made]
    assert read == ([] if patterns is None else [patterns])
    assert [each["metadata"]["name"] for each in made] == ["metallb-excludel2"] * len(read)


def test_names_are_made_of_the_releases_name() -> None:
    assert only(without_definitions(release="metallb"), "DaemonSet")["metadata"]["name"] == "metallb-berthlb-speaker"
    assert only(without_definitions(release="my-berthlb"), "DaemonSet")["metadata"]["name"] == "my-berthlb-speaker"


def test_every_value_that_means_nothing_here_is_accepted_and_named(tmp_path: Path) -> None:
    unused: dict[str, dict[str, Any]] = yaml.safe_load((CHART / "files/unused.yaml").read_text())
    values: dict[str, Any] = {}
    for path in unused:
        *above, name = path.split(".")
        below = values
        for each in above:
            below = below.setdefault(each, {})
        below[name] = {"logLevel": "debug", "enabled": False}.get(name, {"some": "thing"})
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    done = helm("install", "berthlb", str(CHART), "--dry-run=client", "--values", str(tmp_path / "values.yaml"))
    notes = done.stdout.partition("NOTES:")[2]
    named = {line.removeprefix("- ").partition(": ")[0] for line in notes.splitlines() if line.startswith("- ")}
    assert named == set(unused), done.stderr


# ------------------------------------------------------------------------ bad values


BAD = [
    ("speaker.tolerateMastr=true", "'/speaker': additional properties 'tolerateMastr'"),
    ("tolerations=x", "additional properties 'tolerations'"),
    ("speaker.tolerateMaster=maybe", "/speaker/tolerateMaster"),
    ("mode=watch", "/mode"),
    ("loadBalancerClass=not a class", "/loadBalancerClass"),
    ("controller.replicas=-1", "/controller/replicas"),
    ("controller.strategy.type=OnDelete", "/controller/strategy/type"),
    ("speaker.updateStrategy.type=Recreate", "/speaker/updateStrategy/type"),
    ("speaker.livenessOnly=yes", "/speaker/livenessOnly"),
    ("speaker.metricsPort=70000", "/speaker/metricsPort"),
    ("prometheus.metricsPort=metrics", "/prometheus/metricsPort"),
    ("controller.image.pullPolicy=Sometimes", "/controller/image/pullPolicy"),
    ("controller.logLevel=loud", "/controller/logLevel"),
    ("speaker.restartMode=never", "/speaker/restartMode"),
    ("speaker.extraCapabilities={NET_ADMIN}", "/speaker/extraCapabilities/0"),
    ("speaker.extraArgs={gratuitous-limit=10}", "/speaker/extraArgs/0"),
    ("fullnameOverride=Berth LB", "/fullnameOverride"),
    ("imagePullSecrets={registry}", "/imagePullSecrets/0"),
    ("controller.livenessProbe.periodSeconds=0", "/controller/livenessProbe/periodSeconds"),
    ("prometheus.podMonitor.interval=often", "/prometheus/podMonitor/interval"),
    ("prometheus.podMonitor.enabled=true", "/prometheus/serviceAccount"),
    ("prometheus.serviceMonitor.enabled=true", "/prometheus/namespace"),
    ("prometheus.prometheusRule.addressPoolUsage.thresholds[0].percent=110", "/thresholds/0/percent"),
    ("configInline.address-pools={}", "/configInline"),
]


@pytest.mark.parametrize(("value", "field"), BAD, ids=[value for value, _ in BAD])
def test_a_wrong_value_is_refused_with_its_fields_name(value: str, field: str) -> None:
    done = helm("template", "berthlb", str(CHART), "--set", value)
    assert done.returncode != 0
    assert field in done.stderr


def test_speakers_that_announce_nothing_cannot_observe() -> None:
    done = helm("template", "berthlb", str(CHART), "--set", "mode=observe,speaker.livenessOnly=true")
    assert done.returncode != 0
    assert "speaker.livenessOnly: a speaker that announces nothing has nothing to observe" in done.stderr


def test_two_monitors_are_refused() -> None:
    both = "prometheus.podMonitor.enabled=true,prometheus.serviceMonitor.enabled=true,prometheus.rbacPrometheus=false"
    done = helm("template", "berthlb", str(CHART), "--set", both)
    assert "prometheus.podMonitor.enabled and prometheus.serviceMonitor.enabled" in done.stderr


def test_every_default_is_in_the_schema() -> None:
    """So nobody sets a value that the schema would refuse to spell."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def known(value: Any, part: Any) -> None:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if isinstance(value, dict) and "properties" in part:
            for key, below in value.items():
                assert key in part["properties"], key
                known(below, part["properties"][key])

    known(values, schema)


def test_an_older_kubernetes_is_refused() -> None:
    done = helm("template", "berthlb", str(CHART), "--kube-version", "1.29.9")
    assert "kubeVersion: >=1.30.0-0" in done.stderr


def test_the_package_has_the_definitions(tmp_path: Path) -> None:
    """They are linked into the chart; a package must have the files themselves."""
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.iterdir()
    rendering = helm("template", "berthlb", str(package), "--show-only", "templates/crds.yaml")
    assert rendering.stdout.count("kind: CustomResourceDefinition") == len(list((ROOT / "crds").glob("*.yaml")))
    assert rendered() != []
