"""What the controller says on the configuration objects, driven through the core."""

from __future__ import annotations

from cluster.addresses import parse_address
from cluster.objects import PoolName
from cluster.sharing import Sharer
from controller.changes import Moment, Read
from tests.controller.pools.api import Api


def test_a_pool_in_force_says_so_and_counts(api: Api) -> None:
    api.pool("p", "10.0.0.0/30", "2001:db8::/64")
    api.settle()
    assert api.judgement("IPAddressPool", "p") == ("True", "InForce", "")
    api.ledger.take(parse_address("10.0.0.1"), Sharer("default/web"))
    api.ledger.take(parse_address("2001:db8::1"), Sharer("default/web"))
    api.settle()
    counters = {key: value for key, value in api.status("IPAddressPool", "p").items() if key != "conditions"}
    assert counters == {"assignedIPv4": 1, "availableIPv4": 3, "assignedIPv6": 1, "availableIPv6": 2**63 - 1}


def test_a_pool_that_is_empty_says_so_with_the_numbers(api: Api) -> None:
    api.pool("p", "10.0.0.0/31", "2001:db8::/127")
    api.node("n1", "10.0.0.1")
    api.settle()
    assert api.condition("IPAddressPool", "p", "Exhausted") == ("False", "AddressesAvailable", "")
    api.ledger.take(parse_address("10.0.0.0"), Sharer("default/web"))
    api.settle()
    said = "no free IPv4 address (1 of 2 in use, 1 never given out)"
    assert api.condition("IPAddressPool", "p", "Exhausted") == ("True", "NoFreeAddress", said)
    api.ledger.give_back(parse_address("10.0.0.0"), "default/web")
    api.settle()
    assert api.condition("IPAddressPool", "p", "Exhausted")[0] == "False"


def test_a_pool_that_fills_and_empties_all_the_time_says_so_once_a_second(api: Api) -> None:
    api.pool("p", "10.0.0.0/32")
    api.settle()
    api.writes.clear()
    for _ in range(200):
        api.time += 0.01
        api.ledger.take(parse_address("10.0.0.0"), Sharer("default/web"))
        api.turn()
        api.time += 0.01
        api.ledger.give_back(parse_address("10.0.0.0"), "default/web")
        api.turn()
    assert len(api.writes) <= 5


def test_what_a_pool_shares_with_the_cluster_is_named_and_the_pool_stays_in_force(api: Api) -> None:
    api.pool("p", "192.168.1.0/24")
    api.settle()
    assert api.condition("IPAddressPool", "p", "Overlapping") == ("False", "Disjoint", "")
    for number in range(7):
        api.node(f"n{number}", f"192.168.1.1{number}", pods=("192.168.1.128/25",) if number == 6 else ())
    api.settle()
    status, reason, message = api.condition("IPAddressPool", "p", "Overlapping")
    assert (status, reason) == ("True", "NodeAddress")
    assert message.startswith('never given out: 192.168.1.10 is an address of node "n0", 192.168.1.11 is')
    assert message.endswith(" and 3 more; the rest of the pool is")
    assert api.judgement("IPAddressPool", "p") == ("True", "InForce", "")
    assert api.status("IPAddressPool", "p")["availableIPv4"] == 256 - 7 - 128
    for number in range(7):
        api.node(f"n{number}")
    api.settle()
    assert api.condition("IPAddressPool", "p", "Overlapping")[0] == "False"
    assert api.status("IPAddressPool", "p")["availableIPv4"] == 256


def test_news_of_nodes_that_concern_no_pool_write_nothing(api: Api) -> None:
    api.pool("p", "192.168.1.0/24")
    api.advertisement("l2")
    api.node("n1", "10.0.0.1")
    api.settle()
    api.writes.clear()
    api.node("n2", "10.0.0.2", pods=("10.244.0.0/24",))
    api.settle()
    assert api.writes == []


def test_a_pool_of_which_nothing_is_in_force_is_neither_full_nor_free(api: Api) -> None:
    api.pool("p", "bad")
    api.settle()
    unknown = ("Unknown", "NotInForce", "no version of the pool is in force")
    assert api.condition("IPAddressPool", "p", "Exhausted") == unknown
    assert api.condition("IPAddressPool", "p", "Overlapping") == unknown


def test_an_advertisement_names_the_pools_that_do_not_exist(api: Api) -> None:
    api.pool("there", "10.0.0.0/24")
    api.pool("broken", "bad")
    api.advertisement("l2", ipAddressPools=["there", "broken", *(f"gone-{number}" for number in range(7))])
    api.advertisement("selects", ipAddressPoolSelectors=[{"matchLabels": {"tier": "x"}}])
    api.node("n1", "10.9.0.1")
    api.settle()
    names = ", ".join(f'"gone-{number}"' for number in range(5))
    assert api.condition("L2Advertisement", "l2", "PoolsExist") == (
        "False",
        "UnknownPool",
        f"there is no IPAddressPool {names} and 2 more",
    )
    assert api.condition("L2Advertisement", "selects", "PoolsExist")[:2] == ("False", "NoMatchingPool")
    assert api.condition("L2Advertisement", "l2", "NodesMatch") == ("True", "Found", "")
    api.advertisement("l2", ipAddressPools=["late"])
    api.pool("late", "10.0.1.0/24")
    api.settle()
    assert api.condition("L2Advertisement", "l2", "PoolsExist") == ("True", "Found", "")


def test_an_advertisement_that_no_node_matches_says_so_until_one_does(api: Api) -> None:
    api.advertisement("l2", nodeSelectors=[{"matchLabels": {"rack": "a"}}])
    api.node("n1", "10.9.0.1", labels={"rack": "b"})
    api.settle()
    said = ("False", "NoMatchingNode", "spec.nodeSelectors match no node: nobody announces")
    assert api.condition("L2Advertisement", "l2", "NodesMatch") == said
    api.node("n2", "10.9.0.2", labels={"rack": "a"})
    api.settle()
    assert api.condition("L2Advertisement", "l2", "NodesMatch") == ("True", "Found", "")
    api.node("n2")
    api.settle()
    assert api.condition("L2Advertisement", "l2", "NodesMatch") == said


def test_interfaces_are_missing_when_every_matching_node_says_so(api: Api) -> None:
    api.advertisement("l2", interfaces=["eth1"], nodeSelectors=[{"matchLabels": {"rack": "a"}}])
    api.advertisement("any")
    for name, rack in (("n1", "a"), ("n2", "a"), ("n3", "b")):
        api.node(name, "10.9.0.1", labels={"rack": rack})
    api.settle()
    assert api.condition("L2Advertisement", "any", "InterfacesExist") == ("True", "AnyInterface", "")
    assert api.condition("L2Advertisement", "l2", "InterfacesExist")[:2] == ("Unknown", "NotReported")
    api.speaker("n1", "l2")
    api.speaker("n3")
    api.settle()
    assert api.condition("L2Advertisement", "l2", "InterfacesExist")[:2] == ("Unknown", "NotReported")
    api.speaker("n2", "l2", "other")
    api.settle()
    assert api.condition("L2Advertisement", "l2", "InterfacesExist") == (
        "False",
        "NoMatchingInterface",
        'no matching node has an interface "eth1" that can announce: nobody announces',
    )
    api.speaker("n2")
    api.settle()
    assert api.condition("L2Advertisement", "l2", "InterfacesExist") == ("True", "Found", "")
    api.writes.clear()
    api.speaker("n1")
    api.settle()
    assert api.writes == []
    api.speaker("n2", gone=True)
    api.speaker("n1", gone=True)
    api.settle()
    assert api.condition("L2Advertisement", "l2", "InterfacesExist")[0] == "Unknown"


def test_a_speaker_of_an_older_version_has_reported_nothing(api: Api) -> None:
    api.advertisement("l2", interfaces=["eth1"])
    api.node("n1", "10.9.0.1")
    api.speaker("n1", says_nothing=True)
    api.settle()
    assert api.condition("L2Advertisement", "l2", "InterfacesExist")[1] == "NotReported"


def test_a_broken_advertisement_is_judged_by_its_version_in_force(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.advertisement("l2", ipAddressPools=["gone"])
    api.settle()
    api.advertisement("l2", ipAddressPools=["p", "p"])
    api.settle()
    assert api.judgement("L2Advertisement", "l2")[0] == "False"
    assert api.condition("L2Advertisement", "l2", "PoolsExist")[1] == "UnknownPool"


def test_what_is_remembered_of_releases_is_listed_and_read_again(api: Api) -> None:
    api.pool("p", "10.0.0.0/24", "2001:db8::/120")
    api.pool("q", "10.0.1.0/24")
    api.settle()
    for number in range(5):
        addresses = (parse_address(f"10.0.0.{number}"), parse_address(f"2001:db8::{number}"))
        api.releases.remember(PoolName("p"), f"default/s{number}", addresses)
        api.releases.stamp(Moment(api.time, 1_767_225_600.0 + number))
    api.settle()
    listed = api.status("IPAddressPool", "p")["recentReleases"]
    assert [each["service"] for each in listed] == ["default/s4", "default/s3", "default/s2"]
    assert listed[0] == {
        "service": "default/s4",
        "addresses": ("10.0.0.4", "2001:db8::4"),
        "time": "2026-01-01T00:00:04Z",
    }
    assert "recentReleases" not in api.status("IPAddressPool", "q")
    before = len(api.writes)
    api.start()
    api.reports.reload()
    api.releases.restore(api.reports.recorded_releases(), api.reports.in_force.config.pool_of)
    api.settle()
    assert len(api.writes) == before
    for number in range(5):
        api.releases.forget(f"default/s{number}")
    api.settle()
    assert "recentReleases" not in api.status("IPAddressPool", "p")


def test_a_pool_that_cannot_be_read_keeps_its_list(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.settle()
    api.releases.remember(PoolName("p"), "default/web", (parse_address("10.0.0.1"),))
    api.releases.stamp(Moment(api.time, api.time))
    api.settle()
    api.pool("p", "bad")
    api.start()
    api.settle()
    assert [each["service"] for each in api.status("IPAddressPool", "p")["recentReleases"]] == ["default/web"]


def test_a_thousand_allocations_are_not_a_thousand_writes(api: Api) -> None:
    api.pool("p", "10.0.0.0/16")
    api.settle()
    api.writes.clear()
    api.time += 10
    for number in range(100):
        api.ledger.take(parse_address(f"10.0.{number // 250}.{number % 250}"), Sharer(f"default/{number}"))
        api.turn()
    assert len(api.writes) == 1
    api.settle()
    assert len(api.writes) == 2
    assert api.status("IPAddressPool", "p")["assignedIPv4"] == 100


def test_a_broken_pool_says_what_is_wrong_and_what_stays(api: Api) -> None:
    api.pool("p", "10.0.0.0/30")
    api.settle()
    api.pool("p", "10.0.0.1")
    api.settle()
    reason = 'spec.addresses[0]: "10.0.0.1" is a single address; write "10.0.0.1/32"'
    assert api.judgement("IPAddressPool", "p") == (
        "False",
        "Invalid",
        f"{reason}; the last good version stays in force",
    )
    assert [problem.text for problem in api.reports.in_force.take_new_problems()] == [f"IPAddressPool p: {reason}"]
    state = api.status("ConfigurationState", "controller")
    assert (state["result"], state["errorSummary"]) == ("Invalid", f"IPAddressPool p: {reason}")
    assert {each["type"]: (each["status"], each["reason"]) for each in state["conditions"]} == {
        "configReconcilerValid": ("False", "ConfigurationError"),
        "poolReconcilerValid": ("False", "ConfigurationError"),
    }
    api.pool("p", "10.0.0.1/32")
    api.settle()
    assert api.judgement("IPAddressPool", "p")[0] == "True"
    assert api.status("ConfigurationState", "controller")["result"] == "Valid"
    assert api.reports.in_force.take_new_problems() == []


def test_overlap_and_a_bad_advertisement_are_told_apart(api: Api) -> None:
    api.pool("a", "10.0.0.0/24")
    api.pool("b", "10.0.0.128/25")
    api.advertisement("l2", interfaces=["eth0", "eth0"])
    api.settle()
    assert api.judgement("IPAddressPool", "b")[:2] == ("False", "Overlap")
    reason = '10.0.0.128-10.0.0.255 overlaps 10.0.0.0-10.0.0.255 of pool "a", which stays in force'
    assert api.condition("IPAddressPool", "b", "Overlapping") == ("True", "Pool", reason)
    assert api.condition("IPAddressPool", "a", "Overlapping")[0] == "False"
    assert api.judgement("L2Advertisement", "l2") == ("False", "Invalid", 'spec.interfaces[1]: repeats "eth0"')


def test_a_restart_says_nothing_anew(api: Api) -> None:
    api.pool("a", "10.0.0.0/24")
    api.pool("b", "bad")
    api.advertisement("l2")
    api.settle()
    before = len(api.writes)
    api.start()
    api.settle()
    assert len(api.writes) == before


def test_a_server_whose_crds_know_no_conditions_is_not_told_for_ever() -> None:
    api = Api(prunes_conditions=True)
    api.pool("p", "10.0.0.0/24")
    api.advertisement("l2")
    api.settle()
    api.releases.remember(PoolName("p"), "default/web", (parse_address("10.0.0.1"),))
    api.releases.stamp(Moment(api.time, api.time))
    api.settle()
    assert api.status("IPAddressPool", "p")["availableIPv4"] == 256


def test_a_state_that_somebody_deleted_is_made_again_with_the_next_news(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.settle()
    state = api.objects.pop(("ConfigurationState", "controller"))
    assert state["metadata"]["labels"] == {"metallb.io/component-type": "controller"}
    api.pool("p", "bad")
    if api.reports.reload():
        raise AssertionError("a bad edit must not change what is in force")
    (patch, *_) = [
        change
        for change in api.reports.decide(api.ledger, api.releases, api.node_pools, Moment(api.time, api.time))
        if change.resource.kind == "ConfigurationState"
    ]
    assert not isinstance(patch, Read)
    api.reports.answered(patch, None)
    api.settle()
    assert api.status("ConfigurationState", "controller")["result"] == "Invalid"
