"""Reading addresses and ranges as users write them, and looking them up."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import Address, AddressError, Family, Range, RangeMap, parse_address, parse_range


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("192.0.2.10-192.0.2.20", "192.0.2.10-192.0.2.20"),
        ("192.0.2.10 - 192.0.2.20", "192.0.2.10-192.0.2.20"),
        ("  192.0.2.10-192.0.2.10 ", "192.0.2.10-192.0.2.10"),
        ("192.0.2.0/24", "192.0.2.0-192.0.2.255"),
        ("192.0.2.77/24", "192.0.2.0-192.0.2.255"),
        (" 192.0.2.7/32 ", "192.0.2.7-192.0.2.7"),
        ("2001:db8::/64", "2001:db8::-2001:db8::ffff:ffff:ffff:ffff"),
        ("2001:db8::1-2001:db8::1:0", "2001:db8::1-2001:db8::1:0"),
        ("::ffff:192.0.2.0/120", "192.0.2.0-192.0.2.255"),
        ("::ffff:192.0.2.1-192.0.2.9", "192.0.2.1-192.0.2.9"),
    ],
)
def test_ranges_mean_what_users_expect(text: str, meaning: str) -> None:
    assert parse_range(text).text == meaning


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("192.0.2.1", 'is a single address; write "192.0.2.1/32"'),
        ("2001:db8::1", 'is a single address; write "2001:db8::1/128"'),
        ("172.18.255.250-172.18.255.200", "starts after it ends"),
        ("192.0.2.1-2001:db8::1", "starts with IPv4 and ends with IPv6"),
        ("192.0.2.1-", 'has an end "" that is not an IP address'),
        ("192.0.2.1-192.0.2.999", 'has an end "192.0.2.999" that is not an IP address'),
        ("192.0.2.01-192.0.2.9", 'has a start "192.0.2.01" that is not an IP address'),
        ("192.0.2.0/33", "has a prefix longer than 32 bits"),
        ("2001:db8::/129", "has a prefix longer than 128 bits"),
        ("192.0.2.0/9999999999", "has a prefix longer than 32 bits"),
        ("192.0.2.0/255.255.255.0", "is not a CIDR like 192.0.2.0/24"),
        ("192.0.2.0/²4", "is not a CIDR like 192.0.2.0/24"),
        ("/24", "has no IP address before the slash"),
        ("fe80::1%eth0/64", "is not a CIDR like 192.0.2.0/24"),
        ("", "is neither a CIDR like 192.0.2.0/24 nor a range like 192.0.2.1-192.0.2.9"),
        ("public", "is neither a CIDR like 192.0.2.0/24 nor a range like 192.0.2.1-192.0.2.9"),
        ("0.0.0.0/0", 'contains 0.0.0.0/8 ("this network", RFC 1122 §3.2.1.3), which no Service can have'),
        ("192.0.2.0-225.0.0.0", "contains 224.0.0.0/4 (multicast), which no Service can have"),
        ("255.255.255.255/32", "contains 255.255.255.255 (the limited broadcast address), which no Service can have"),
        ("ff02::1-ff02::2", "contains ff00::/8 (multicast), which no Service can have"),
        ("::/0", "contains :: (the unspecified address), which no Service can have"),
    ],
)
def test_a_range_that_cannot_be_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(AddressError) as refused:
        parse_range(text)
    assert str(refused.value) == reason


@pytest.mark.parametrize("text", ["fe80::1%eth0", "192.0.2.1/32", "1", "192.0.2.256", "a.b.c.d"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)


def test_a_mapped_address_means_the_ipv4_address() -> None:
    assert parse_address(" ::ffff:192.0.2.1 ").text == "192.0.2.1"


@given(st.ip_addresses())
def test_an_address_survives_its_text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    parsed = parse_address(str(address))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert parsed.text == str(mapped or address)
    assert parse_address(parsed.text) == parsed


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parsed = parse_range(text)
    except AddressError:
        return
    assert parsed.count > 0
    assert parse_range(parsed.text) == parsed


SMALL = st.tuples(st.integers(0, 30), st.integers(0, 5), st.sampled_from(Family))


@given(st.lists(SMALL, max_size=12), st.integers(0, 40), st.integers(0, 6), st.sampled_from(Family))
def test_the_map_finds_what_a_plain_search_finds(
    spans: list[tuple[int, int, Family]], at: int, length: int, family: Family
) -> None:
    index: RangeMap[int] = RangeMap()
    model: dict[Range, int] = {}
    for number, (first, extent, its_family) in enumerate(spans):
        block = Range(its_family, first, first + extent)
        if any(block.overlaps(other) for other in model):
            assert index.overlapping(block) is not None
            with pytest.raises(ValueError, match="overlaps"):
                index.add(block, number)
        else:
            index.add(block, number)
            model[block] = number
    together: RangeMap[int] = RangeMap()
    together.add_all(list(model.items())[1::2])
    together.add_all(list(model.items())[::2])
    whole = [Range(each, 0, 1000) for each in Family]
    assert [together.within(block) for block in whole] == [index.within(block) for block in whole]
    address = Address(family, at)
    containing = [(block, number) for block, number in model.items() if address in block]
    assert index.find(address) == (containing[0] if containing else None)
    asked = Range(family, at, at + length)
    found = index.overlapping(asked)
    expected = [(block, number) for block, number in model.items() if block.overlaps(asked)]
    assert (found in expected) if expected else found is None
    cut = [
        (Range(family, max(block.first, asked.first), min(block.last, asked.last)), number)
        for block, number in sorted(expected)
    ]
    assert index.within(asked) == cut
    inside = {value for block, _ in cut for value in range(block.first, block.last + 1)}
    outside = [value for block in index.gaps(asked) for value in range(block.first, block.last + 1)]
    assert outside == [value for value in range(asked.first, asked.last + 1) if value not in inside]


def test_ranges_added_together_must_not_overlap_either() -> None:
    index: RangeMap[int] = RangeMap()
    index.add(Range(Family.IPV4, 5, 9), 1)
    with pytest.raises(ValueError, match="overlaps"):
        index.add_all([(Range(Family.IPV4, 1, 5), 2)])
    assert index.find(Address(Family.IPV4, 1)) is None
