"""Where people have MetalLB's old configuration: found there, or named with what to do."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli import convert as conversion
from cli import sources
from cli.convert import Conversion, ConversionError, convert

CONFIG = {"address-pools": [{"name": "home", "protocol": "layer2", "addresses": ["192.0.2.240-192.0.2.250"]}]}
VALUES = {"configInline": CONFIG}
TEXT = yaml.safe_dump(VALUES)

Object = dict[str, Any]


def manifest(kind: str, spec: Object, api: str = "example.com/v1", namespace: str | None = "network") -> Object:
    metadata = {"name": "metallb"} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}


def flux(**spec: Any) -> Object:
    chart = {"spec": {"chart": "metallb", "version": "0.12.1", "sourceRef": {"kind": "HelmRepository", "name": "m"}}}
    return manifest("HelmRelease", {"interval": "5m", "chart": chart, **spec}, "helm.toolkit.fluxcd.io/v2beta1")


def argo(*sources: Object, **spec: Any) -> Object:
    where = {"source": sources[0]} if len(sources) == 1 else {"sources": list(sources)}
    spec = {**where, "destination": {"namespace": "network", "name": "here"}, **spec}
    return manifest("Application", spec, "argoproj.io/v1alpha1", "argocd")


def k3s(kind: str, **spec: Any) -> Object:
    return manifest(kind, spec, "helm.cattle.io/v1", "kube-system")


def address_pool(name: str = "home", version: str = "v1beta1", **spec: Any) -> Object:
    spec = {"protocol": "layer2", "addresses": ["192.0.2.240-192.0.2.250"], **spec}
    metadata = {"name": name, "namespace": "network"}
    return {"apiVersion": f"metallb.io/{version}", "kind": "AddressPool", "metadata": metadata, "spec": spec}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FOUND: dict[str, tuple[Any, str]] = {
    "Flux": (flux(values=VALUES), "network"),
    "Flux, in another namespace": (flux(values=VALUES, targetNamespace="lb"), "lb"),
    "Flux, the first version": (manifest("HelmRelease", {"values": VALUES}, "helm.fluxcd.io/v1"), "network"),
    "Argo CD, values": (argo({"chart": "metallb", "helm": {"values": TEXT}}), "network"),
    "Argo CD, valuesObject": (argo({"helm": {"valuesObject": VALUES}}), "network"),
    "Argo CD, several sources": (argo({"ref": "values"}, {"helm": {"values": TEXT}}), "network"),
    "Argo CD, a set of applications": (
        manifest("ApplicationSet", {"template": {"spec": argo({"helm": {"values": TEXT}})["spec"]}}),
        "network",
    ),
    "k3s": (k3s("HelmChart", valuesContent=TEXT, targetNamespace="network"), "network"),
    "k3s, where the chart is": (k3s("HelmChart", valuesContent=TEXT), "kube-system"),
    "k3s, what is added": (k3s("HelmChartConfig", valuesContent=TEXT), "metallb-system"),
    "Helm values": (VALUES, "metallb-system"),
    "an umbrella chart's values": ({"metallb": VALUES}, "metallb-system"),
    "an umbrella's umbrella": ({"infra": {"enabled": True, "metallb": VALUES}}, "metallb-system"),
    "Flux, an umbrella chart": (flux(values={"metallb": VALUES}), "network"),
    "values that are a text": ({"configInline": yaml.safe_dump(CONFIG)}, "metallb-system"),
    "Rancher's Fleet": ({"defaultNamespace": "x", "helm": {"chart": "metallb", "values": VALUES}}, "metallb-system"),
    "Kustomize": ({"kind": "Kustomization", "helmCharts": [{"valuesInline": VALUES}]}, "metallb-system"),
    "Kustomize, a ConfigMap that it makes": (
        {
            "kind": "Kustomization",
            "namespace": "network",
            "configMapGenerator": [{"name": "config", "literals": ["a=b", "config=" + yaml.safe_dump(CONFIG)]}],
        },
        "network",
    ),
    "helmfile": ({"releases": [{"name": "metallb", "values": [VALUES]}]}, "metallb-system"),
    "an addon of Konvoy": (
        manifest("ClusterConfiguration", {"addons": {"addonsList": [{"name": "metallb", "values": TEXT}]}}),
        "metallb-system",
    ),
    "a ConfigMap of values": (
        {"kind": "ConfigMap", "metadata": {"name": "v"}, "data": {"values.yaml": TEXT}},
        "metallb-system",
    ),
    "a ConfigMap of values, spelled otherwise": (
        {"kind": "ConfigMap", "data": {"values.yaml": TEXT.replace("Inline", "InLine")}},
        "metallb-system",
    ),
    "a Secret of values": ({"kind": "Secret", "data": {"v": encoded(TEXT), "w": "%"}}, "metallb-system"),
    "variables of Ansible": ({"metallb": {"config": CONFIG}}, "metallb-system"),
    "AddressPool": (address_pool(), "network"),
    "AddressPool, the first version": (address_pool(version="v1alpha1"), "network"),
    "a list": ({"kind": "List", "items": [{"kind": "Service"}, flux(values=VALUES)]}, "network"),
}


@pytest.mark.parametrize("where", FOUND)
@pytest.mark.parametrize("form", [yaml.safe_dump, json.dumps])
def test_the_configuration_is_found_where_people_have_it(where: str, form: Any) -> None:
    source, namespace = FOUND[where]
    made = convert(form(source)).documents
    assert [(each["kind"], each["metadata"]) for each in made] == [
        ("IPAddressPool", {"name": "home", "namespace": namespace}),
        ("L2Advertisement", {"name": "home", "namespace": namespace}),
    ]
    assert made[0]["spec"]["addresses"] == ["192.0.2.240-192.0.2.250"]


def said(*objects: Any) -> list[str]:
    """The remarks, or the mistake alone."""
    try:
        lines = list(convert("\n---\n".join(yaml.safe_dump(each) for each in objects)).remarks)
    except ConversionError as error:
        lines = [str(error)]
    assert all(line.isprintable() for line in lines)
    return lines


def test_whose_namespace_it_is_is_told() -> None:
    told = said(flux(values=VALUES))
    assert told[0].startswith("the objects go to the namespace network, as spec.values.configInline of HelmRelease ")
    assert said(flux(values=VALUES, targetNamespace="metallb-system")) == []


NOT_READ = "is not read: if configInline is there, convert that"
PARTS = "has parts of configInline: write them as YAML, under configInline"
REFERENCES = [
    (
        flux(
            valuesFrom=[
                {"kind": "ConfigMap", "name": "a"},
                {"kind": "Secret", "name": "b", "valuesKey": "k"},
            ]
        ),
        [
            f"HelmRelease network/metallb: ConfigMap a (values.yaml), which spec.valuesFrom names, {NOT_READ}",
            f"HelmRelease network/metallb: Secret b (k), which spec.valuesFrom names, {NOT_READ}",
        ],
    ),
    (
        argo({"helm": {"valueFiles": ["values.yaml", "$values/lan.yaml"]}}),
        [
            f"Application argocd/metallb: the value file values.yaml {NOT_READ}",
            f"Application argocd/metallb: the value file $values/lan.yaml {NOT_READ}",
        ],
    ),
    (
        {
            "kind": "Kustomization",
            "metadata": {"name": "lb"},
            "configMapGenerator": [{"name": "config", "files": ["config=lan.yaml", "notes.txt"]}],
            "helmCharts": [{"name": "metallb", "valuesFile": "v.yaml", "additionalValuesFiles": ["w.yaml"]}],
        },
        [
            "Kustomization lb: the file lan.yaml, which configMapGenerator names, has the configuration: convert that",
            f"Kustomization lb: the value file v.yaml {NOT_READ}",
            f"Kustomization lb: the value file w.yaml {NOT_READ}",
        ],
    ),
    (
        argo({"helm": {"parameters": [{"name": "configInline.address-pools[0].name", "value": "home"}]}}),
        [f"Application argocd/metallb: helm.parameters {PARTS}"],
    ),
    (
        k3s("HelmChart", set={"configInline.address-pools[0].name": "home"}, valuesSecrets=[{"name": "v"}]),
        [
            f"HelmChart kube-system/metallb: Secret v, which spec.valuesSecrets names, {NOT_READ}",
            f"HelmChart kube-system/metallb: spec.set {PARTS}",
        ],
    ),
    (
        flux(values={"existingConfigMap": "lan"}, chart={}),
        [
            "HelmRelease network/metallb: ConfigMap lan, which spec.values.existingConfigMap names, has the "
            "configuration: convert that",
        ],
    ),
    (
        {
            "kind": "Secret",
            "metadata": {"name": "v"},
            "stringData": {"v": "ENC[AES256_GCM,data:x]"},
            "sops": {"mac": "x"},
        },
        ["Secret v: it is encrypted with sops: decrypt it first, with sops --decrypt"],
    ),
]


@pytest.mark.parametrize(
    ("source", "hints"), REFERENCES, ids=lambda each: each["kind"] if isinstance(each, dict) else ""
)
def test_what_the_file_only_names_is_named(source: Object, hints: list[str]) -> None:
    assert said(source) == [f"there is no configuration of MetalLB in it; {'; '.join(hints)}"]
    beside = said(source, VALUES)
    assert [line for line in beside if not line.startswith("passed by: ")] == hints


def test_what_is_encrypted_or_a_template_is_named() -> None:
    encrypted = {"address-pools": [{"name": "home", "protocol": "layer2", "addresses": ["ENC[AES256_GCM,data:x]"]}]}
    assert said({"configInline": encrypted, "sops": {}}) == [
        "configInline: it is encrypted with sops: decrypt it first, with sops --decrypt"
    ]
    for text in ("${LB_RANGE}", "{{ .Values.range }}", "<path:lan/data#range>", "$(RANGE)"):
        pool = {"name": "home", "protocol": "layer2", "addresses": [text]}
        assert said({"configInline": {"address-pools": [pool]}}) == [
            f'configInline: "{text}" has a placeholder: fill it in first'
        ]
    for template in ("a: {{ .Values.a }}\n", "{{- if .Values.metallb }}\nconfigInline: {}\n{{- end }}\n"):
        with pytest.raises(ConversionError, match="it looks like a template: render it first, for example with helm"):
            convert(template)
    broken = argo({"helm": {"values": "configInline:\n  address-pools: {{ toYaml .Values.pools }}\n"}})
    (line,) = said(broken)
    assert line.startswith("spec.source.helm.values: not YAML:")
    assert "it looks like a template" in line


def test_another_charts_inline_configuration_is_passed_by() -> None:
    contour = {"contour": {"configInline": {"disablePermitInsecure": "false", "tls": {}}}, "metallb": VALUES}
    assert said(contour) == ["passed by: contour.configInline, which has nothing of MetalLB's configuration"]
    assert said({"contour": contour["contour"]})[0].startswith('unknown key "contour"')
    assert said(flux(values=contour["contour"])) == ["there is no configuration of MetalLB in it"]


def test_the_other_values_beside_it_are_named() -> None:
    values = {"metallb": {**VALUES, "speaker": {"enabled": True}, "psp": {}}, "nginx": {"replicas": 1}}
    assert said(values) == ["passed by: the other Helm values: psp, speaker"]


def test_the_custom_resources_of_metallb_0_13_are_converted_or_named() -> None:
    bgp = [
        {"apiVersion": "metallb.io/v1beta1", "kind": kind, "metadata": {"name": "x", "namespace": "network"}}
        for kind in ("BGPPeer", "BGPAdvertisement", "BFDProfile", "Community", "IPAddressPool", "L2Advertisement")
    ]
    lan = address_pool("Lan", addresses=["10.0.0.0/24"], autoAssign=False, avoidBuggyIPs=True)
    routed = address_pool("routed", protocol="bgp", addresses=["10.0.1.0/24"])
    source = "\n---\n".join(yaml.safe_dump(each) for each in [*bgp, address_pool(), lan, routed])
    result: Conversion = convert(source, "metallb-system")
    specs = {each["metadata"]["name"]: each["spec"] for each in result.documents if each["kind"] == "IPAddressPool"}
    assert specs == {
        "home": {"addresses": ["192.0.2.240-192.0.2.250"]},
        "lan": {"addresses": ["10.0.0.0/24"], "autoAssign": False, "avoidBuggyIPs": True},
    }
    told = "\n".join(result.remarks)
    for kind in ("BGPPeer", "BGPAdvertisement", "BFDProfile", "Community"):
        assert f"left out: {kind} network/x: BerthLB does not serve BGP" in told
    for kind in ("IPAddressPool", "L2Advertisement"):
        assert f"passed by: {kind} network/x, which BerthLB reads as it is: apply it" in told
    assert 'pool "routed": left out with all that is in it' in told


@pytest.mark.parametrize(
    ("pool", "mistake"),
    [
        (address_pool(addresses=None), 'pool "home": addresses: give at least one prefix or range'),
        (address_pool(adresses=[]), 'pool "home": unknown key "adresses"; did you mean "addresses"?'),
        (address_pool(autoAssign="maybe"), 'pool "home": auto-assign: "maybe" is neither true nor false'),
        ({**address_pool(), "spec": None}, "AddressPool network/home: it has no spec"),
        ({**address_pool(), "metadata": None}, "address-pools[0]: the pool has no name"),
    ],
)
def test_a_mistake_in_an_address_pool_is_named(pool: Object, mistake: str) -> None:
    assert said(pool) == [mistake]


def test_address_pools_of_other_projects_are_none_of_ours() -> None:
    other = {**address_pool(), "apiVersion": "coil.cybozu.com/v2"}
    assert said(other) == ["there is no configuration of MetalLB in it"]


def test_several_configurations_are_converted_one_at_a_time() -> None:
    other = address_pool("other", addresses=["10.0.0.0/24"])
    assert said(flux(values=VALUES), other) == [
        "there are several configurations, spec.values.configInline of HelmRelease network/metallb and AddressPool "
        "network/other: convert one at a time"
    ]
    elsewhere = {**address_pool("x"), "metadata": {"name": "x", "namespace": "b"}}
    assert said(other, elsewhere) == ["there are AddressPools of several namespaces: convert those of one at a time"]


def test_what_refers_to_itself_or_is_said_twice_comes_to_an_end() -> None:
    text = "a: &a {configInline: &c {address-pools: [{name: home, protocol: layer2, addresses: [192.0.2.0/24]}]}}\n"
    assert len(convert(f"{text}b: *a\nc: [*a, *a]\n").documents) == 2
    with pytest.raises(ConversionError):
        convert("a: &a [*a]\n")
    with pytest.raises(ConversionError, match="not a text"):
        convert("configInline: &c {address-pools: [{name: a, protocol: layer2, addresses: &d [*d, *c]}]}\n")
    billions = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    assert len(convert(billions + TEXT).documents) == 2


LITERALS = re.findall(r'"([\w./-]+)"', Path(sources.__file__).read_text() + Path(conversion.__file__).read_text())
WORDS = st.sampled_from(sorted(set(LITERALS)))
"""All single words that the code looks for, as keys and as values."""
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    WORDS,
    st.sampled_from([TEXT, "10.0.0.0/24", "${X}", "ENC[x]", "{{x}}", "configInline:", "metallb.io/v1beta1"]),
)


@given(
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.one_of(WORDS, SCALARS), inner, max_size=5),
        max_leaves=30,
    )
)
def test_whatever_stands_where_is_converted_or_refused_in_one_line(source: Any) -> None:
    for form in (
        yaml.safe_dump(source, allow_unicode=True),
        yaml.safe_dump([source, source]),
        yaml.safe_dump({"spec": source}),
    ):
        try:
            lines = convert(form).remarks
        except ConversionError as error:
            lines = (str(error),)
        assert all(line.isprintable() for line in lines), lines
