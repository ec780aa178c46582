"""Words that do not exist, and objects where they have no effect: each is answered where people look."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator

import pytest

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation import Installation
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]
WEBHOOK = "metallb-webhook-configuration"


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Installation]:
    with Installation(control_plane, "words") as cluster:
        yield cluster


def wait_for_words(cluster: Installation, service: str, words: str) -> None:
    """In the Service's condition."""
    wait_until(lambda: words in cluster.condition(service).get("message", ""), 40)


def test_a_misspelt_annotation_is_answered_with_the_one_that_was_meant(cluster: Installation) -> None:
    cluster.pool("lan", "10.35.0.0/24")
    cluster.service("web", **{"metallb.io/adress-pool": "lan", "metallb.universe.tf/loadbalancerIPs": "10.35.0.9"})
    answer = 'annotation "metallb.io/adress-pool" has no effect; did you mean "metallb.io/address-pool"?'
    wait_until(lambda: answer in cluster.kubectl("describe", "service", "web"))
    assert cluster.condition("web")["message"].startswith(f'10.35.0.0 from pool "lan"; the {answer}; the annotation "')
    wait_until(lambda: cluster.events().count("unknownAnnotation") == 2)
    for written, meant in (
        ("metalb.io/address-pool", "metallb.io/address-pool"),
        ("metallb.universe.tf/allow-shared-ips", "metallb.io/allow-shared-ip"),
        ("metallb.io/loadBalancerIP", "metallb.io/loadBalancerIPs"),
    ):
        cluster.service("other", **{written: "lan"})
        wait_for_words(cluster, "other", f'annotation "{written}" has no effect; did you mean "{meant}"?')
    cluster.kubectl("annotate", "service", "web", "metallb.io/adress-pool-", "metallb.universe.tf/loadbalancerIPs-")
    wait_until(lambda: cluster.condition("web")["message"] == '10.35.0.0 from pool "lan"')


def test_a_pool_in_another_namespace_is_named(control_plane: ControlPlane, cluster: Installation) -> None:
    """By kubectl at once, and by the controller where nobody else reads that namespace."""
    elsewhere = f"elsewhere-{uuid.uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", elsewhere)
    body = {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "lan"}}
    text = json.dumps({**body, "spec": {"addresses": ["10.36.0.0/24"]}})
    try:
        made = control_plane.try_kubectl("apply", "-n", elsewhere, "-f", "-", stdin=text)
        assert made.returncode == 0
        assert "IPAddressPool lan counts only in the namespace of a controller, such as metallb-system" in made.stderr
        with Installation(control_plane, "neighbour") as neighbour:
            neighbour.pool("theirs", "10.37.0.0/24")
            told = ("describe", "ipaddresspool", "lan", "-n", elsewhere)
            wait_until(lambda: f'reads the namespace "{cluster.name}" only' in control_plane.kubectl(*told), 30)
            cluster.service("web", **{"metallb.io/address-pool": "lan"})
            wait_until(lambda: cluster.condition("web"))
            assert cluster.condition("web")["message"] == (
                f'there is no pool "lan"; pool "lan" of namespace "{elsewhere}" does not count, since the controller '
                "reads another"
            )
            assert "WrongNamespace" not in neighbour.events()
            quiet = json.dumps({**body, "spec": {"addresses": ["10.36.1.0/24"]}})
            done = control_plane.try_kubectl(
                "apply", "-n", "metallb-system", "--dry-run=server", "-f", "-", stdin=quiet
            )
            assert (done.returncode, done.stderr) == (0, "")
        cluster.kubectl("create", "-f", "-", stdin=text)
        wait_until(lambda: cluster.address("web") == "10.36.0.0")
    finally:
        control_plane.kubectl("delete", "namespace", elsewhere, "--wait=false")


def test_a_webhook_that_metallb_left_behind_is_named(control_plane: ControlPlane) -> None:
    """Its Service may be gone, or be there with nobody behind it, as where our controller came in MetalLB's place."""
    with Installation(control_plane, "webhook", start=False) as cluster:
        service = {"name": "metallb-webhook-service", "namespace": cluster.name, "path": "/validate"}
        rule = {"apiGroups": ["metallb.io"], "apiVersions": ["v1beta1"], "operations": ["CREATE", "UPDATE"]}
        webhook = {
            "name": "ipaddresspoolvalidationwebhook.metallb.io",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": service},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "rules": [{**rule, "resources": ["ipaddresspools"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.name}},
        }
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
        body = {**kind, "metadata": {"name": WEBHOOK}, "webhooks": [webhook]}
        control_plane.kubectl("create", "-f", "-", stdin=json.dumps(body))
        asks = f"asks the Service {cluster.name}/metallb-webhook-service, "
        advice = f"kubectl delete validatingwebhookconfiguration {WEBHOOK}"
        state = ("get", "configurationstate", "controller", "-o", "jsonpath={.status.errorSummary}")
        try:
            cluster.start()
            cluster.service("web")
            cluster.service("named", **{"metallb.io/address-pool": "lan"})
            for each in ("web", "named"):
                wait_for_words(cluster, each, advice)
                assert asks + "which does not exist" in cluster.condition(each)["message"]
            wait_until(lambda: advice in cluster.kubectl(*state))
            assert [line for line in cluster.controller.lines if advice in json.dumps(line)]

            name = {"name": "metallb-webhook-service"}
            spec = {"ports": [{"port": 443}], "selector": {"component": "controller"}}
            cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": name, "spec": spec})
            cluster.controller.end(signal.SIGTERM)
            cluster.start()
            wait_until(lambda: asks + "behind which nobody is ready" in cluster.condition("web")["message"], 40)

            labels = {"kubernetes.io/service-name": "metallb-webhook-service"}
            endpoint = {"addresses": ["192.0.2.1"], "conditions": {"ready": True}}
            cluster.apply(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {**name, "labels": labels},
                    "addressType": "IPv4",
                    "endpoints": [endpoint],
                    "ports": [{"port": 443}],
                }
            )
            cluster.controller.end(signal.SIGTERM)
            cluster.start()
            wait_until(
                lambda: cluster.condition("web")["message"] == "there is no IPAddressPool to take an address from"
            )
            assert cluster.kubectl(*state) == ""
        finally:
            control_plane.kubectl("delete", "validatingwebhookconfiguration", WEBHOOK)
