"""Which Services have addresses in common, what of that is announced together, and what a change touches: tables."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from cluster.objects import AddressText, Condition, Service, ServiceStatus
from speaker.api.components import Components
from tests.speaker.api.objects import ENDS, STAYS, a_service, a_slice, a_slice_of

A, B, C = (AddressText(f"192.0.2.{number}") for number in (1, 2, 3))


def shared(name: str, *addresses: str, port: int, created: str = "2026-01-01T00:00:00Z") -> Service:
    return a_service(name, *addresses, port=port, share="x", created=created)


def given(service: Service, *addresses: str) -> Service:
    """The same, with a condition that says that it was given these addresses."""
    message = f'{", ".join(addresses)} from pool "lan"' if addresses else "no address is free"
    said = Condition("berthlb.io/AddressAssigned", "True", message=message)
    return replace(service, status=ServiceStatus(service.status.load_balancer, (said,)))


def components(*services: Service) -> Components:
    found = Components(None)
    for each in services:
        found.set_service(each.key, each)
        found.set_slice(f"{each.key}-abc", a_slice(each.metadata.name))
    found.take_touched()
    return found


def named(*names: str) -> set[str]:
    return {f"default/{name}" for name in names}


OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"


@pytest.mark.parametrize(
    ("services", "component", "groups"),
    [
        ([a_service("a", A), a_service("b", B)], {"a"}, [{"a": (A,)}]),
        ([shared("a", A, port=1), shared("b", A, port=2)], {"a", "b"}, [{"a": (A,), "b": (A,)}]),
        (
            [shared("a", A, port=1), shared("b", A, B, port=2), shared("c", B, port=3)],
            {"a", "b", "c"},
            [{"a": (A,), "b": (A, B), "c": (B,)}],
        ),
        ([a_service("a", A, created=OLD), a_service("b", A, created=NEW)], {"a", "b"}, [{"a": (A,)}]),
        (
            [
                a_service("a", A, created=OLD),
                a_service("b", A, B, created=NEW),
                a_service("c", B, created=NEW),
            ],
            {"a", "b", "c"},
            [{"a": (A,)}, {"b": (B,)}],
        ),
        ([a_service("a", A, created=OLD), given(a_service("b", A, created=NEW), A)], {"a", "b"}, [{"b": (A,)}]),
        ([given(a_service("a", A), B), a_service("b", B)], {"a", "b"}, [{"a": (A,)}]),
        ([a_service("a", A), a_service("b", A, lb_class="other")], {"a"}, [{"a": (A,)}]),
        ([a_service("a", "node.example")], {"a"}, []),
        ([a_service("a", "2001:DB8::1", A)], {"a"}, [{"a": ("2001:db8::1", A)}]),
    ],
    ids=[
        "nothing in common",
        "an address that they share",
        "through another",
        "an address that they may not share is the older one's",
        "what the loss of an address divides",
        "an address that the newer was given is the newer one's",
        "what one shows and another was given connects them, and nobody has what it was given without showing it",
        "another class is none of our business",
        "a name is no address",
        "an address of each family",
    ],
)
def test_what_is_connected_and_what_is_announced_together(
    services: Sequence[Service], component: set[str], groups: list[dict[str, tuple[AddressText, ...]]]
) -> None:
    found = components(*services)
    assert found.component("default/a") == named(*component)
    told = [
        {ours.service.metadata.name: tuple(place.text for place in ours.shown) for ours in group}
        for group in found.groups(named(*component))
    ]
    assert told == groups


@pytest.mark.parametrize(
    ("key", "after", "touched", "forgotten"),
    [
        ("a", a_service("a", A), set(), []),
        ("a", a_service("a", A, labels={"other": "label"}), {"a"}, []),
        ("a", None, {"a"}, [A]),
        ("b", None, {"b", "c"}, []),
        ("b", shared("b", C, port=2), {"b", "c"}, []),
        ("d", a_service("d", B), {"d"}, []),
        ("a", a_service("a", type_="ClusterIP"), {"a"}, [A]),
    ],
    ids=[
        "nothing, where nothing has changed",
        "itself",
        "nobody else, where it was alone",
        "those that it was with",
        "those that it leaves",
        "itself alone, for its component is found from it",
        "what is no longer of our kind is gone",
    ],
)
def test_what_a_change_of_a_service_touches(
    key: str, after: Service | None, touched: set[str], forgotten: list[AddressText]
) -> None:
    found = components(a_service("a", A), shared("b", B, port=2), shared("c", B, port=3))
    assert [place.text for place in found.set_service(f"default/{key}", after)] == forgotten
    assert found.touched is bool(touched)
    assert found.take_touched() == named(*touched)
    assert not found.touched


def test_endpoints_touch_their_service_only_where_it_makes_a_difference() -> None:
    found = components(a_service("a", A))
    key = "default/a-abc"
    for after, touches in (
        (a_slice("a", "node-1"), False),
        (a_slice("a", "node-2"), True),
        (a_slice_of({"node-2": [ENDS]}, "a"), True),
        (a_slice_of({"node-2": [ENDS, STAYS]}, "a"), True),
        (a_slice("a", "node-2", ready=False), True),
        (None, True),
        (None, False),
    ):
        found.set_slice(key, after)
        assert found.take_touched() == (named("a") if touches else set())
    assert not any(found.serving("default/a"))


@pytest.mark.parametrize(("address", "services"), [(A, ["a"]), (B, ["b", "c"]), (C, []), ("nonsense", [])])
def test_whose_status_shows_an_address(address: AddressText, services: list[str]) -> None:
    found = components(given(a_service("a", A), C), shared("b", B, port=2), shared("c", B, port=3))
    assert set(found.with_address(address)) == named(*services)
