"""What MetalLB's old configuration becomes: every setting carried over, or named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli.convert import ConversionError, convert
from cli.yaml_text import written
from cluster import config
from cluster.addresses import parse_range
from cluster.objects import IPAddressPool, L2Advertisement

ROOT = Path(__file__).parents[2]

Manifest = dict[str, Any]

KEYS = st.sampled_from(["kind", "config", "items", "address-pools", "peers", "name", "protocol", "addresses", "cidr"])


def config_map(text: str, namespace: str | None = "metallb-system", name: str = "config") -> str:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"config": text}})


def pool_text(*, name: str = "default", addresses: str = "[192.0.2.0/24]", **more: str) -> str:
    """A configuration with one layer2 pool; ``auto_assign`` is the key auto-assign."""
    fields = {"name": name, "protocol": "layer2", "addresses": addresses, **more}
    parts = ", ".join(f"{key.replace('_', '-')}: {value}" for key, value in fields.items() if value)
    return f"address-pools: [{{{parts}}}]"


def pools(source: str) -> list[Manifest]:
    return [each for each in convert(source).documents if each["kind"] == "IPAddressPool"]


def spec(source: str) -> Manifest:
    (pool,) = pools(source)
    found: Manifest = pool["spec"]
    return found


def mistake(source: str | bytes) -> str:
    with pytest.raises(ConversionError) as refused:
        convert(source)
    said = str(refused.value)
    assert said.isprintable(), "one line"
    return said


def remark(source: str) -> str:
    (only,) = convert(source).remarks
    assert only.isprintable(), "one line"
    return only


# ------------------------------------------------------------------------ what comes out


def test_a_layer2_pool_becomes_a_pool_and_an_advertisement_of_it_alone() -> None:
    done = convert(config_map(pool_text()))
    metadata = {"name": "default", "namespace": "metallb-system"}
    assert done.documents == (
        {
            "apiVersion": "metallb.io/v1beta1",
            "kind": "IPAddressPool",
            "metadata": metadata,
            "spec": {"addresses": ["192.0.2.0/24"]},
        },
        {
            "apiVersion": "metallb.io/v1beta1",
            "kind": "L2Advertisement",
            "metadata": metadata,
            "spec": {"ipAddressPools": ["default"]},
        },
    )
    assert done.remarks == ()


@pytest.mark.parametrize("word", ["true", "yes", "On", "y", "TRUE"])
def test_switches_that_are_on_stay_on(word: str) -> None:
    assert spec(pool_text(auto_assign=word, avoid_buggy_ips=word)) == {
        "addresses": ["192.0.2.0/24"],
        "autoAssign": True,
        "avoidBuggyIPs": True,
    }


@pytest.mark.parametrize("word", ["false", "no", "Off", "n"])
def test_switches_that_are_off_stay_off(word: str) -> None:
    assert spec(pool_text(auto_assign=word, avoid_buggy_ips=word)) == {
        "addresses": ["192.0.2.0/24"],
        "autoAssign": False,
        "avoidBuggyIPs": False,
    }


def test_a_switch_that_is_null_was_not_set() -> None:
    assert spec(pool_text(auto_assign="null", avoid_buggy_ips="~")) == {"addresses": ["192.0.2.0/24"]}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("192.0.2.10-192.0.2.20", "192.0.2.10-192.0.2.20"),
        ("192.0.2.10 - 192.0.2.20", "192.0.2.10-192.0.2.20"),
        ("192.0.2.10-192.0.2.10", "192.0.2.10-192.0.2.10"),
        ("192.0.2.77/24", "192.0.2.0/24"),
        ("192.0.2.77/32", "192.0.2.77/32"),
        ("192.0.2.0/024", "192.0.2.0/24"),
        ('" 192.0.2.0/24 "', "192.0.2.0/24"),
        ("2001:DB8:0::/64", "2001:db8::/64"),
        ("2001:db8::1-2001:db8::ff", "2001:db8::1-2001:db8::ff"),
        ('"::ffff:192.0.2.0/120"', "192.0.2.0/24"),
    ],
)
def test_addresses_stay_the_same_in_a_form_that_the_api_server_takes(old: str, new: str) -> None:
    assert spec(pool_text(addresses=f"[{old}]"))["addresses"] == [new]


def test_pools_and_addresses_keep_their_order() -> None:
    text = """
    address-pools:
    - {name: zebra, protocol: layer2, addresses: [192.0.2.128/25, 192.0.2.0/25]}
    - {name: ant, protocol: layer2, addresses: [198.51.100.0/24]}
    """
    done = convert(text)
    names = [(each["kind"], each["metadata"]["name"]) for each in done.documents]
    assert names == [
        ("IPAddressPool", "zebra"),
        ("L2Advertisement", "zebra"),
        ("IPAddressPool", "ant"),
        ("L2Advertisement", "ant"),
    ]
    assert done.documents[0]["spec"]["addresses"] == ["192.0.2.128/25", "192.0.2.0/25"]
    assert written(done.documents) == written(convert(text).documents)


def test_the_words_of_the_first_versions_are_understood() -> None:
    text = "address-pools: [{name: lan, protocol: arp, arp-network: 172.31.0.0/23, cidr: [172.31.1.0/24]}]"
    assert spec(text)["addresses"] == ["172.31.1.0/24"]
    assert remark(text).startswith('pool "lan": arp-network 172.31.0.0/23 is left out')


# ------------------------------------------------------------------------ what has no counterpart


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            "peers: [{peer-address: 10.0.0.1, peer-asn: 64501, my-asn: 64500, password: s3cret}, {}]",
            "peers: left out, BGP peers (2)",
        ),
        ("peer-autodiscovery: {from-labels: {my-asn: x}}", "peer-autodiscovery: left out, the discovery of BGP peers"),
        ("bgp-communities: {one: 65535:65282}", "bgp-communities: left out, names of BGP communities (1)"),
        ("bfd-profiles: [{name: full}]", "bfd-profiles: left out, BFD profiles for BGP peers (1)"),
    ],
)
def test_each_part_of_bgp_is_left_out_with_a_remark(part: str, said: str) -> None:
    assert remark(f"{part}\n{pool_text()}") == f"{said}: BerthLB does not serve BGP"


@pytest.mark.parametrize("part", ["peers: []", "peers:", "bgp-communities: {}", "bfd-profiles: null"])
def test_nothing_is_said_about_empty_parts(part: str) -> None:
    assert convert(f"{part}\n{pool_text()}").remarks == ()


def test_a_bgp_pool_is_left_out_and_its_neighbour_is_not() -> None:
    text = """
    address-pools:
    - {name: public, protocol: bgp, addresses: [198.51.100.0/24], bgp-advertisements: [{localpref: 100}]}
    - {name: lan, protocol: layer2, addresses: [192.0.2.0/24]}
    """
    assert [each["metadata"]["name"] for each in pools(text)] == ["lan"]
    assert remark(text).startswith('pool "public": left out')


def test_bgp_advertisements_of_a_layer2_pool_are_left_out() -> None:
    text = pool_text(bgp_advertisements="[{localpref: 100}]")
    assert spec(text) == {"addresses": ["192.0.2.0/24"]}
    assert remark(text).startswith('pool "default": bgp-advertisements are left out')


@pytest.mark.parametrize("text", ["address-pools: []", config_map(""), config_map("# nothing yet"), "{}"])
def test_without_a_layer2_pool_nothing_comes_out(text: str) -> None:
    assert convert(text).documents == ()
    assert remark(text) == "there is no layer2 pool: nothing to apply"


# ------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("load_Balanced", "load-balanced"),
        ("Public IPs (Berlin)", "public-ips-berlin"),
        ("-edge-", "edge"),
        ("rack.-1", "rack.1"),
        ("a..b", "a.b"),
        ("___", "pool"),
        ("=", "pool"),
        ("Größe", "gr-e"),
        ("x" * 300, "x" * 253),
    ],
)
def test_a_name_that_kubernetes_refuses_is_changed_with_a_remark(old: str, new: str) -> None:
    text = pool_text(name=f'"{old}"')
    assert [each["metadata"]["name"] for each in convert(text).documents] == [new, new]
    assert convert(text).documents[1]["spec"]["ipAddressPools"] == [new]
    said = remark(text)
    assert old[:79] in said
    assert said.endswith(f"change the annotation metallb.universe.tf/address-pool of Services to {new}")


@pytest.mark.parametrize("name", ["default", "rack.1", "1.10", "yes", "2021-01-01", "1e3", "0o17", "y", "a" * 253])
def test_a_name_that_kubernetes_takes_is_kept_as_written(name: str) -> None:
    done = convert(pool_text(name=name))
    assert [each["metadata"]["name"] for each in done.documents] == [name, name]
    assert done.remarks == ()


@pytest.mark.parametrize("name", ["1e3", "12e-5", "0o17", "0x1f", "y", "n", "1_0", "1.10", "yes", "null", "2021-01-01"])
def test_no_reader_can_take_a_name_for_a_number(name: str) -> None:
    """YAML 1.2 and Go's reader know more numbers than the library that writes."""
    text = written([{"name": name}])
    assert text.strip() in {f'name: "{name}"', f"name: '{name}'"}


def test_new_names_are_never_another_pools() -> None:
    text = """
    address-pools:
    - {name: Lan, protocol: layer2, addresses: [192.0.2.0/26]}
    - {name: LAN, protocol: layer2, addresses: [192.0.2.64/26]}
    - {name: lan, protocol: layer2, addresses: [192.0.2.128/26]}
    - {name: lan-2, protocol: bgp, addresses: [192.0.2.192/26]}
    """
    assert [each["metadata"]["name"] for each in pools(text)] == ["lan-3", "lan-4", "lan"]


@pytest.mark.parametrize(
    ("first", "second", "new"),
    [
        ("X" * 260 + "1", "X" * 260 + "2", ["x" * 253, "x" * 251 + "-2"]),
        ("X" * 250 + ".YY", "X" * 250 + ".Yy", ["x" * 250 + ".yy", "x" * 250 + "-2"]),
    ],
)
def test_long_names_stay_different_and_short_enough(first: str, second: str, new: list[str]) -> None:
    text = two_pools(f"name: {first}, addresses: [192.0.2.0/25]", f"name: {second}, addresses: [192.0.2.128/25]")
    assert [each["metadata"]["name"] for each in pools(text)] == new


# ------------------------------------------------------------------------ where the configuration is


def namespaces(source: str, asked: str | None = None) -> set[str]:
    return {each["metadata"]["namespace"] for each in convert(source, asked).documents}


def test_the_objects_go_to_the_configmaps_namespace() -> None:
    assert namespaces(config_map(pool_text(), "lb")) == {"lb"}
    assert "--namespace lb" in remark(config_map(pool_text(), "lb"))


def test_the_namespace_can_be_chosen() -> None:
    assert namespaces(config_map(pool_text(), "lb"), "metallb-system") == {"metallb-system"}
    assert convert(config_map(pool_text(), "lb"), "metallb-system").remarks == ()


@pytest.mark.parametrize("source", [pool_text(), config_map(pool_text(), None)])
def test_the_usual_namespace_is_taken_where_none_is_named(source: str) -> None:
    assert namespaces(source) == {"metallb-system"}


@pytest.mark.parametrize("namespace", ["Lb", "a.b", "-", "x" * 64])
def test_a_namespace_that_cannot_be_is_refused(namespace: str) -> None:
    with pytest.raises(ConversionError, match="cannot be the name of a namespace"):
        convert(pool_text(), namespace)
    assert "cannot be the name of a namespace" in mistake(config_map(pool_text(), namespace))


def test_other_documents_are_passed_by_with_a_line_each() -> None:
    service = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: dev}}"
    other = config_map("x", "dev", "other").replace("config: x", "log-level: debug")
    source = f"{service}\n---\n{config_map(pool_text())}\n---\n---\n{other}"
    assert len(pools(source)) == 1
    assert convert(source).remarks == (
        "passed by: Service dev/web",
        'passed by: ConfigMap dev/other, which has no key "config"',
    )


def test_a_list_as_kubectl_prints_it_is_looked_through() -> None:
    items = [yaml.safe_load(config_map(pool_text())), {"kind": "Secret", "metadata": {"name": "memberlist"}}]
    source = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items})
    assert len(pools(source)) == 1
    assert remark(source) == "passed by: Secret memberlist"


def test_helm_values_are_understood() -> None:
    source = f"configInline: {{{pool_text()}}}\nspeaker: {{}}\n"
    assert len(pools(source)) == 1
    assert remark(source) == "passed by: the other Helm values: speaker"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_other_systems_are_read(encoding: str) -> None:
    assert convert(config_map(pool_text()).replace("\n", "\r\n").encode(encoding)).documents


# ------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "it is empty"),
        ("---\n---\n", "it is empty"),
        ("[1", "not YAML: expected ',' or ']', but got '<stream end>', line 1"),
        ("a: b: c", "not YAML: mapping values are not allowed here, line 1"),
        ("\x00", "not YAML: not a text, or with characters that YAML does not allow"),
        (b"\xff\xff\x00", "not YAML: not a text, or with characters that YAML does not allow"),
        (b"\xff\xfe\x00\xd8", "not YAML: not a text, or with characters that YAML does not allow"),
        ("[" * 5000, "not YAML that can be read: nested too deeply"),
        ("a: *b", "not YAML: found undefined alias 'b', line 1"),
        ("a: !!python/object:os.x {}", "not YAML: could not determine a constructor for the tag"),
        ("hello", "document 1: neither a ConfigMap nor a configuration of MetalLB: it is not a mapping"),
        ("- a", "document 1: neither a ConfigMap nor"),
        ("kind: Service\n", "there is no configuration of MetalLB in it"),
        ("{kind: ConfigMap, metadata: {name: a, namespace: b}}", 'ConfigMap b/a has no key "config" in data'),
        ("{kind: ConfigMap, data: {Config: x}}", 'ConfigMap without a name has no key "config" in data'),
        ("{kind: ConfigMap, metadata: {name: a}, data: {config: {a: 1}}}", "ConfigMap a: data.config is not a text"),
        (config_map("[1"), "data.config: not YAML: expected ',' or ']', but got '<stream end>', line 1"),
        (config_map("hello"), "data.config: the configuration is not a mapping"),
        (config_map("a: 1\n---\nb: 1"), "data.config: there are several YAML documents in it"),
        ("configInline: [1]", "configInline: the configuration is not a mapping"),
        (
            f"{config_map(pool_text())}---\n{config_map('', 'b')}",
            "there are several configurations, ConfigMap metallb-system/config and ConfigMap b/config",
        ),
        ("address-pool: []", 'unknown key "address-pool"; did you mean "address-pools"?'),
        ("address-pools: []\naddress-pools: []", "not YAML: a key that its mapping already has, line 2"),
        ("data: {}", 'unknown key "data"; MetalLB knew address-pools, peers'),
        ("address-pools: {}", "address-pools: not a list"),
        ("address-pools: [x]", "address-pools[0]: a pool is a mapping with name, protocol and addresses"),
        ("address-pools: [{protocol: layer2}]", "address-pools[0]: the pool has no name"),
        ("address-pools: [{nam: x}]", 'address-pools[0]: unknown key "nam"; did you mean "name"?'),
        ("address-pools: [{name: [x]}]", "address-pools[0]: the name is not a text"),
        ("address-pools: [{name: a}]", 'pool "a": the pool has no protocol'),
        ("address-pools: [{name: a, protocol: Layer2}]", 'pool "a": protocol: "Layer2" is unknown'),
        ("address-pools: [{name: a, protocol: [bgp]}]", 'pool "a": protocol: "?" is unknown'),
        ("address-pools: [{name: a, protocol: bgp, adresses: []}]", 'pool "a": unknown key "adresses"; did you mean'),
        (pool_text(auto_asign="no"), 'pool "default": unknown key "auto-asign"; did you mean "auto-assign"?'),
        (pool_text(auto_assign="never"), 'pool "default": auto-assign: "never" is neither true nor false'),
        (pool_text(avoid_buggy_ips="[]"), 'pool "default": avoid-buggy-ips: "?" is neither true nor false'),
        (pool_text(addresses="null"), 'pool "default": addresses: give at least one prefix or range'),
        (pool_text(addresses="192.0.2.0/24"), 'pool "default": addresses: not a list'),
        (pool_text(addresses="[[]]"), 'pool "default": addresses[0]: not a text'),
        (pool_text(cidr="[192.0.2.0/24]"), 'pool "default": cidr is the old word for addresses; keep one of them'),
        (pool_text(name='"a\\nb"', addresses="[]"), 'pool "a\\nb": addresses: give at least one'),
        (pool_text(name='"\\e[31m"', addresses="[]"), 'pool "\\u001b[31m": addresses: give at least one'),
    ],
)
def test_each_mistake_has_its_own_line(source: str | bytes, said: str) -> None:
    assert mistake(source).startswith(said)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("192.0.2.1", '[0]: "192.0.2.1" is a single address; write "192.0.2.1/32"'),
        ("192.0.2.0/24, 192.0.2.256/32", '[1]: "192.0.2.256/32" has no IP address before the slash'),
        ("192.0.2.0/33", '[0]: "192.0.2.0/33" has a prefix longer than 32 bits'),
        ("192.0.2.010/32", '[0]: "192.0.2.010/32" has no IP address before the slash'),
        ("192.0.2.9-192.0.2.1", '[0]: "192.0.2.9-192.0.2.1" starts after it ends'),
        ('"192.0.2.1-2001:db8::1"', '[0]: "192.0.2.1-2001:db8::1" starts with IPv4 and ends with IPv6'),
        ("126.0.0.0/7", '[0]: "126.0.0.0/7" contains 127.0.0.0/8 (loopback), which no Service can have'),
        ('"fe80::/64"', '[0]: "fe80::/64" contains fe80::/10 (link-local addresses), which no Service can have'),
        ("192.0.2.0/24, 192.0.2.9/32", '[1]: "192.0.2.9/32" overlaps 192.0.2.0/24 of pool "default"'),
        ('"1-\\n2"', '[0]: "1-\\n2" has a start "1" that is not an IP address'),
    ],
)
def test_addresses_that_no_pool_may_have_are_refused(entries: str, said: str) -> None:
    assert mistake(pool_text(addresses=f"[{entries}]")) == f'pool "default": addresses{said}'


def two_pools(first: str, second: str) -> str:
    return f"address-pools: [{{protocol: layer2, {first}}}, {{protocol: layer2, {second}}}]"


def test_two_pools_of_one_name_are_refused() -> None:
    text = two_pools("name: a, addresses: [192.0.2.0/25]", "name: a, addresses: [192.0.2.128/25]")
    assert mistake(text) == 'address-pools[1]: there is another pool named "a"'


def test_pools_that_overlap_are_refused() -> None:
    text = two_pools("name: a, addresses: [192.0.2.0/24]", "name: b, addresses: [192.0.2.250-192.0.3.5]")
    assert mistake(text) == 'pool "b": addresses[0]: "192.0.2.250-192.0.3.5" overlaps 192.0.2.0/24 of pool "a"'


def test_more_addresses_than_a_pool_takes_are_refused() -> None:
    (version,) = yaml.safe_load((ROOT / "crds/metallb.io_ipaddresspools.yaml").read_text())["spec"]["versions"]
    fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    limit = fields["addresses"]["maxItems"]
    entries = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(limit + 1)]
    assert len(spec(pool_text(addresses=f"[{', '.join(entries[:-1])}]"))["addresses"]) == limit
    assert f"{limit + 1} entries" in mistake(pool_text(addresses=f"[{', '.join(entries)}]"))


def test_passwords_are_never_shown() -> None:
    for text in ("peers: [{password: s3cret}]\n", "peers: [{password: s3cret}]\npeer: {password: s3cret}\n"):
        try:
            said = " ".join(convert(text).remarks)
        except ConversionError as error:
            said = str(error)
        assert "s3cret" not in said


# ------------------------------------------------------------------------ whatever goes in


def one_line(source: str | bytes) -> None:
    """Converted or refused, but never anything else, and in lines that a terminal can show."""
    try:
        said = convert(source).remarks
    except ConversionError as error:
        said = (str(error),)
    assert all(line.isprintable() for line in said)


@given(st.text() | st.binary())
def test_any_text_is_converted_or_refused_in_one_line(source: str | bytes) -> None:
    one_line(source)


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(["layer2", "192.0.2.0/24"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, values, max_size=4))
def test_any_configuration_is_converted_or_refused_in_one_line(source: Manifest) -> None:
    one_line(yaml.safe_dump(source, allow_unicode=True))


@st.composite
def entries(draw: st.DrawFn, pool: int, position: int) -> str:
    """An address range that overlaps no other entry's."""
    bits = draw(st.integers(24, 32))
    first = draw(st.integers(0, 255))
    last = draw(st.integers(first, 255))
    four, six = f"10.{pool}.{position}", f"2001:DB8:{pool}:{position}:"
    forms = [
        f"{four}.{first}/{bits}",
        f"{four}.{first} - {four}.{last}",
        f"{six}:{first:x}/{bits + 96}",
        f"{six}:{first:x}-{six}:{last:x}",
        f"::ffff:{four}.{first}/{bits + 96}",
    ]
    return draw(st.sampled_from(forms))


FILLED_IN_LATER = ("ENC[", "${", "$(", "{{", "{%", "<path:")


@st.composite
def old_pools(draw: st.DrawFn) -> list[Manifest]:
    """The pools of a configuration that MetalLB would have taken, with nothing in it that is to be filled in."""
    texts = st.text(min_size=1, max_size=12).filter(lambda text: not any(mark in text for mark in FILLED_IN_LATER))
    names = texts | st.sampled_from(["Lan", "LAN", "lan", "lan-2", "1e3", "no"])
    made = []
    for pool, name in enumerate(draw(st.lists(names, max_size=4, unique=True))):
        addresses = [draw(entries(pool, position)) for position in range(draw(st.integers(1, 3)))]
        protocol = draw(st.sampled_from(["layer2", "layer2", "bgp"]))
        switches = {
            key: draw(st.booleans()) for key in draw(st.sets(st.sampled_from(["auto-assign", "avoid-buggy-ips"])))
        }
        made.append({"name": name, "protocol": protocol, "addresses": addresses, **switches})
    return made


@given(old_pools())
def test_whatever_comes_out_the_daemons_accept_whole(old: list[Manifest]) -> None:
    done = convert(yaml.safe_dump({"address-pools": old}, allow_unicode=True))
    parsed = list(yaml.safe_load_all(written(done.documents)))
    assert parsed == list(done.documents)
    made = [msgspec.convert(each, IPAddressPool) for each in parsed if each["kind"] == "IPAddressPool"]
    announced = [msgspec.convert(each, L2Advertisement) for each in parsed if each["kind"] == "L2Advertisement"]
    loaded = config.load(made, announced, None)
    assert loaded.problems == ()
    kept = [pool for pool in old if pool["protocol"] != "bgp"]
    assert len(loaded.config.pools) == len(kept)
    for before, pool in zip(kept, made, strict=True):
        in_force = config.parse_pool(pool)
        assert in_force.ranges == tuple(parse_range(text) for text in before["addresses"])
        assert in_force.auto_assign is before.get("auto-assign", True)
        assert in_force.avoid_buggy_ips is before.get("avoid-buggy-ips", False)
        assert loaded.config.advertisements[in_force.name].pools == frozenset({in_force.name})
