"""What ``berthlb migrate check`` finds in clusters of many kinds; on a real API server in tests/kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from cli.migration import Finding, judge
from cli.surveying import KINDS

OWN = "metallb-system"


def thing(plural: str, name: str, namespace: str | None = OWN, **more: Any) -> tuple[str, dict[str, Any]]:
    meta = {"name": name, **({"namespace": namespace} if namespace else {}), **more.pop("meta", {})}
    return plural, {"kind": KINDS[plural].kind, "metadata": meta, **more}


def pool(name: str = "lan", addresses: str = "192.0.2.0/28", **spec: Any) -> tuple[str, dict[str, Any]]:
    return thing("ipaddresspools", name, spec={"addresses": [addresses], **spec})


def service(name: str = "web", address: str = "192.0.2.1", **more: Any) -> tuple[str, dict[str, Any]]:
    status = {"loadBalancer": {"ingress": [{"ip": address}]}}
    return thing(
        "services", name, "default", spec={"type": "LoadBalancer", **more.pop("spec", {})}, status=status, **more
    )


def workload(part: str, *args: str, namespace: str = OWN, image: str = "", **more: Any) -> tuple[str, dict[str, Any]]:
    plural = {"controller": "deployments", "speaker": "daemonsets"}[part]
    container = {"name": part, "image": image or f"quay.io/metallb/{part}:v0.15.3", "args": [*args]}
    spec = {"template": {"spec": {"containers": [container]}}, **more.pop("spec", {})}
    return thing(plural, part, namespace, spec=spec, **more)


def definition(plural: str, **meta: Any) -> tuple[str, dict[str, Any]]:
    name = f"{plural}.metallb.io"
    return thing("customresourcedefinitions", name, None, spec={"group": "metallb.io"}, meta=meta)


L2 = thing("l2advertisements", "all", spec={})
STOPPED = (
    workload("controller", spec={"replicas": 0}),
    workload("speaker", status={"desiredNumberScheduled": 0}),
)
METALLB = (pool(), L2, service(), *STOPPED)


def findings(*things: tuple[str, dict[str, Any]]) -> list[Finding]:
    survey: dict[str, Any] = dict.fromkeys(KINDS, ())
    for plural, body in things:
        survey[plural] += (body,)
    return judge(survey, OWN)


def reasons(*things: tuple[str, dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each.weight, each.reason) for each in findings(*things)]


def test_a_stopped_metallb_of_layer_2_has_nothing_in_the_way() -> None:
    assert findings(*METALLB) == []


def test_a_running_metallb_is_to_be_stopped() -> None:
    running = (workload("controller", spec={"replicas": 1}), workload("speaker", status={"desiredNumberScheduled": 3}))
    (found,) = findings(*METALLB[:3], *running)
    assert (found.weight, found.reason) == ("step", "StopMetalLB")
    assert found.objects == ("DaemonSet metallb-system/speaker", "Deployment metallb-system/controller")


@pytest.mark.parametrize(
    "image",
    [
        "quay.io/metallb/speaker:v0.13.12",
        "registry.example:5000/mirror/metallb/speaker@sha256:0123",
        "bitnami/metallb-speaker:0.14",
        "metallb/speaker",
    ],
)
def test_metallb_is_found_by_its_image_wherever_that_is_from(image: str) -> None:
    plural, body = workload("speaker", image=image)
    assert ("changes", "NoMetalLB") not in reasons(pool(), L2, (plural, body))


def test_what_is_not_metallb_is_not_taken_for_it() -> None:
    assert reasons(workload("controller", image="example.com/other/controller:1"), pool(), L2) == [
        ("changes", "NoMetalLB")
    ]


def test_pools_by_bgp_alone_block_and_the_services_that_use_them_are_counted() -> None:
    routed = pool("routed", "198.51.100.0/28")
    only_lan = thing("l2advertisements", "lan", spec={"ipAddressPools": ["lan"]})
    bgp = thing("bgpadvertisements", "routed", spec={"ipAddressPools": ["routed"], "localPref": 100})
    found = findings(pool(), routed, only_lan, bgp, service(), service("r", "198.51.100.3"), *STOPPED)
    (blocking,) = [each for each in found if each.weight == "blocks"]
    assert (blocking.reason, blocking.objects) == ("PoolByBGP", ("IPAddressPool routed",))
    assert " 1 Services " in blocking.text


def test_bgp_beside_layer_2_changes_something_and_blocks_nothing() -> None:
    bgp = thing("bgpadvertisements", "all", spec={"communities": ["64512:1"]})
    peer = thing("bgppeers", "router", spec={"peerASN": 64512})
    assert reasons(*METALLB, bgp, peer) == [("changes", "BGPAdvertisement"), ("changes", "BGPPeer")]


def test_selectors_of_pools_are_understood_for_both_protocols() -> None:
    plural, body = pool("routed", "198.51.100.0/28")
    labelled = plural, {**body, "metadata": {**body["metadata"], "labels": {"zone": "edge"}}}
    selects = {"ipAddressPoolSelectors": [{"matchLabels": {"zone": "edge"}}]}
    only_lan = thing("l2advertisements", "lan", spec={"ipAddressPools": ["lan"]})
    bgp = thing("bgpadvertisements", "edge", spec=selects)
    assert ("blocks", "PoolByBGP") in reasons(pool(), labelled, only_lan, bgp, *STOPPED)
    both = thing("l2advertisements", "edge", spec=selects)
    assert ("blocks", "PoolByBGP") not in reasons(pool(), labelled, only_lan, both, bgp, *STOPPED)


def test_old_pools_block() -> None:
    old = thing("addresspools", "old", spec={"protocol": "layer2"})
    assert reasons(*METALLB, old) == [("blocks", "AddressPool")]


def test_what_would_not_be_in_force_blocks() -> None:
    assert reasons(*METALLB, pool("twice", "192.0.2.8/29")) == [("blocks", "NotInForce")]


def test_pools_of_other_namespaces_count_for_nobody() -> None:
    elsewhere = thing("ipaddresspools", "mine", "default", spec={"addresses": ["192.0.2.0/28"]})
    assert findings(*METALLB, elsewhere) == []


def test_another_class_is_to_be_given_to_berthlb_too() -> None:
    spec = {"replicas": 0}
    controller = workload("controller", "--port=7472", "--lb-class=example.com/lb", spec=spec)
    classy = service("classy", spec={"loadBalancerClass": "example.com/lb"})
    (found,) = findings(*METALLB[:3], classy, controller, STOPPED[1])
    assert (found.weight, found.reason) == ("changes", "LoadBalancerClass")
    assert "example.com/lb alone, which are 1:" in found.text


def test_another_namespace_blocks() -> None:
    assert ("blocks", "OtherNamespace") in reasons(*METALLB[:3], workload("controller", namespace="lb"), STOPPED[1])


def test_unknown_fields_and_annotations_are_named() -> None:
    odd = pool("odd", "203.0.113.0/28", futureField=1)
    annotated = service(
        "annotated", meta={"annotations": {"metallb.io/color": "red", "metallb.io/address-pool": "lan"}}
    )
    found = findings(*METALLB, odd, annotated)
    assert [(each.reason, each.objects) for each in found] == [
        ("UnknownField", ("IPAddressPool metallb-system/odd",)),
        ("UnknownAnnotation", ("Service default/annotated",)),
    ]
    assert "spec.futureField" in found[0].text
    assert "metallb.io/color" in found[1].text
    assert "address-pool" not in found[1].text


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({}, "kubectl delete -f"),
        (
            {"annotations": {"meta.helm.sh/release-name": "lb", "meta.helm.sh/release-namespace": "infra"}},
            "helm uninstall lb --namespace infra",
        ),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "infra"}}, "Flux when its infra"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "lb:apps/Deployment:x/y"}}, "Application lb"),
    ],
)
def test_who_would_delete_the_definitions_and_the_pools_with_them_is_said(meta: dict[str, Any], said: str) -> None:
    (found,) = findings(*METALLB, definition("ipaddresspools", **meta), definition("l2advertisements", **meta))
    assert (found.weight, found.reason, len(found.objects)) == ("step", "OwnedDefinitions", 2)
    assert said in found.text
    assert "1 pools and 1 advertisements" in found.text


def test_a_webhook_for_pools_is_to_be_removed_and_no_other() -> None:
    def webhook(name: str, group: str) -> tuple[str, dict[str, Any]]:
        rules = [{"apiGroups": [group], "resources": ["ipaddresspools"]}]
        return thing("validatingwebhookconfigurations", name, None, webhooks=[{"rules": rules}])

    (found,) = findings(*METALLB, webhook("metallb-webhook-configuration", "metallb.io"), webhook("other", "apps"))
    assert found.objects == ("ValidatingWebhookConfiguration metallb-webhook-configuration",)
