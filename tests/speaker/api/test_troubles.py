"""What keeps a speaker from doing its part: when it counts as a trouble, and when it is over."""

from __future__ import annotations

from cluster.objects import NodeName
from speaker.api.events import Event
from speaker.api.troubles import BARE_S, MAX_REMEMBERED, PATIENCE_S, REMEMBERED_S, Troubles
from speaker.link import LinkName

OWN, OTHER = NodeName("node-1"), NodeName("node-2")
ETH0 = frozenset({LinkName("eth0")})


def troubles() -> Troubles:
    """Of a speaker with an interface, in a cluster with another node that runs one."""
    made = Troubles(OWN, "metallb-system")
    made.set_links(ETH0, 0.0)
    for node in (OWN, OTHER):
        made.set_node(node, exists=True, ready=True)
        made.set_speaker(node, exists=True)
    return made


def reasons(made: Troubles, now: float) -> list[str]:
    return [trouble.reason for trouble in made.present(now)]


def test_all_is_well_where_another_speaker_is_heard() -> None:
    made = troubles()
    made.set_hearing(0.0, hears=True)
    assert made.present(10 * PATIENCE_S) == ()


def test_hearing_nobody_is_a_trouble_after_a_while_and_names_who_should_be_heard() -> None:
    made = troubles()
    made.set_hearing(0.0, hears=False)
    assert reasons(made, PATIENCE_S - 1) == []
    made.set_hearing(PATIENCE_S, hears=False)
    (trouble,) = made.present(PATIENCE_S)
    assert trouble.reason == "NobodyHeard"
    assert not trouble.serious
    assert "UDP port 7948" in trouble.text
    assert "there are speakers on node-2" in trouble.text
    made.set_hearing(PATIENCE_S + 1, hears=True)
    assert reasons(made, PATIENCE_S + 1) == []


def test_nobody_is_missed_whose_node_is_not_ready_or_never_had_a_speaker() -> None:
    """A node that is down is not heard, and that is no fault of ours. A single node hears nobody, ever."""
    for lacking in ("node", "speaker"):
        made = troubles()
        made.set_hearing(0.0, hears=False)
        if lacking == "node":
            made.set_node(OTHER, exists=True, ready=False)
        else:
            made.set_speaker(OTHER, exists=False)
        made.set_hearing(1.0, hears=False)
        assert reasons(made, 10 * PATIENCE_S) == []


def test_a_node_without_usable_interface_cannot_take_part() -> None:
    made = Troubles(OWN, "metallb-system")
    assert reasons(made, 1000.0) == []  # not known yet
    made.set_links(frozenset(), 0.0)
    assert reasons(made, BARE_S - 1) == []
    (trouble,) = made.present(BARE_S)
    assert trouble.reason == "NoUsableInterface"
    assert trouble.serious
    assert "node-1" in trouble.text
    assert "IPv4" in trouble.text
    made.set_links(ETH0, BARE_S + 1)
    assert reasons(made, BARE_S + 1) == []


def test_an_interface_whose_sockets_cannot_be_had_is_told_of_at_once_and_with_the_reason() -> None:
    made = troubles()
    made.set_refused({LinkName("eth1"): "Address already in use"})
    (trouble,) = made.present(0.0)
    assert (trouble.reason, trouble.serious) == ("InterfaceRefused", False)
    assert "cannot announce on eth1" in trouble.text
    assert "Address already in use" in trouble.text
    made.set_links(frozenset(), 0.0)
    (trouble,) = made.present(BARE_S)
    assert (trouble.reason, trouble.serious) == ("InterfaceRefused", True)
    made.set_refused({})
    assert reasons(made, BARE_S) == ["NoUsableInterface"]


def test_why_each_interface_cannot_be_used_is_said_where_it_is_known() -> None:
    made = Troubles(OWN, "metallb-system")
    made.set_links(frozenset(), 0.0)
    made.set_reasons(
        {LinkName("eth1"): "has no IPv4 and no link-local IPv6 address", LinkName("eth2"): "has no carrier"}
    )
    assert (
        "on: eth1 has no IPv4 and no link-local IPv6 address; eth2 has no carrier; an interface needs"
        in made.present(BARE_S)[0].text
    )
    made.set_links(ETH0, 0.0)
    made.set_unusable((LinkName("eth2"), LinkName("eth3")))
    assert "on: eth2 has no carrier; an interface needs" in made.present(BARE_S)[0].text


def test_who_has_no_interface_does_not_wonder_that_nobody_is_heard() -> None:
    made = troubles()
    made.set_links(frozenset(), 0.0)
    made.set_hearing(0.0, hears=False)
    assert reasons(made, 10 * PATIENCE_S) == ["NoUsableInterface"]


def test_a_namespace_that_does_not_exist_is_named() -> None:
    made = troubles()
    made.set_namespace(exists=False)
    (trouble,) = made.present(0.0)
    assert (trouble.reason, trouble.serious) == ("NoNamespace", True)
    assert "namespace metallb-system" in trouble.text
    made.set_namespace(exists=True)
    assert reasons(made, 0.0) == []


def test_an_interface_that_is_named_and_cannot_be_used_is_named() -> None:
    made = troubles()
    made.set_unusable((LinkName("eth1"),))
    (trouble,) = made.present(0.0)
    assert (trouble.reason, trouble.serious) == ("UnusableInterface", False)
    assert "names eth1, which node node-1 has" in trouble.text


def test_what_a_notice_tells_is_remembered_for_a_while_after_its_last_word() -> None:
    made = troubles()
    told = Event(None, "DuplicateNode", "another machine", ("DuplicateNode", "a"))
    made.note(told, 0.0)
    made.note(told, 100.0)
    assert [trouble.text for trouble in made.present(100.0 + REMEMBERED_S - 1)] == ["another machine"]
    assert reasons(made, 100.0 + REMEMBERED_S) == []


def test_what_the_lan_makes_us_remember_is_bounded() -> None:
    made = troubles()
    for number in range(10 * MAX_REMEMBERED):
        made.note(
            Event(None, "MemberNonsense", f"member {number}", ("MemberNonsense", str(number))), float(number) / 100
        )
    assert len(made.present(10.0)) == MAX_REMEMBERED


def test_long_lists_are_shortened() -> None:
    made = troubles()
    made.set_unusable(tuple(LinkName(f"eth{number}") for number in range(9)))
    assert "eth0, eth1, eth2, eth3, eth4 and 4 more" in made.present(0.0)[0].text


def test_a_node_of_the_wrong_name_is_a_trouble_once_all_nodes_are_known() -> None:
    made = Troubles(OWN, "metallb-system")
    made.set_links(ETH0, 0.0)
    made.set_node(OTHER, exists=True, ready=True)
    assert reasons(made, 0.0) == []
    made.all_nodes_known()
    (trouble,) = made.present(0.0)
    assert (trouble.reason, trouble.serious) == ("NoNode", True)
    assert "--node-name" in trouble.text
    assert "spec.nodeName" in trouble.text
    made.set_node(OWN, exists=True, ready=True)
    assert reasons(made, 0.0) == []
    made.set_node(OWN, exists=False, ready=False)
    assert reasons(made, 0.0) == ["NoNode"]


def test_a_server_that_is_too_old_is_a_trouble_until_it_is_not() -> None:
    made = troubles()
    made.set_server("it is Kubernetes v1.29.4")
    (trouble,) = made.present(0.0)
    assert (trouble.reason, trouble.text, trouble.serious) == ("OldServer", "it is Kubernetes v1.29.4", True)
    made.set_server("")
    assert made.present(0.0) == ()


def test_blocked_heartbeats_name_the_nodes_the_interface_and_the_port_to_open() -> None:
    made = troubles()
    made.set_hearing(0.0, hears=True)
    made.set_blocked({LinkName("eth0"): (OTHER,)})
    (trouble,) = made.present(0.0)
    assert (trouble.reason, trouble.serious) == ("HeartbeatsBlocked", False)
    assert "no heartbeat of node-2 arrives on eth0 of node node-1" in trouble.text
    assert "UDP port 7948" in trouble.text
    assert "224.0.0.254" in trouble.text
    made.set_blocked({})
    assert made.present(1.0) == ()
