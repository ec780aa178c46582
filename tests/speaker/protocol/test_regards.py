"""What a Plan tells of another that came before it: was it decided by a person, or did a node come back by itself?"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO
from speaker.link import LinkName
from speaker.plan import Bundle, BundleId, Candidate
from speaker.protocol.regards import Regard, regards

ME, B = NodeName("a"), NodeName("b")


def bundle(*candidates: Candidate, unfit: tuple[NodeName, ...] = (), local: bool = False) -> Bundle:
    return Bundle(BundleId("uid"), (AddressText("10.0.9.1"),), ("default/web",), candidates, unfit=unfit, local=local)


MINE, THEIRS = Candidate(ME, 0, 1), Candidate(B, 0, 50)
BOTH, LOCAL = bundle(THEIRS, MINE), bundle(THEIRS, MINE, local=True)
ENDING = replace(THEIRS, ending=True)
DECIDED, CAME_BACK, NEITHER = Regard(decided_at=7.0), Regard(fit_since=7.0), None


@pytest.mark.parametrize(
    ("former", "now", "found"),
    [
        (bundle(MINE), BOTH, DECIDED),
        (bundle(MINE, unfit=(B,)), BOTH, CAME_BACK),
        (bundle(MINE, unfit=(B,), local=True), BOTH, DECIDED),
        (bundle(MINE, replace(THEIRS, preference=0)), BOTH, DECIDED),
        (bundle(replace(MINE, preference=90), THEIRS), BOTH, DECIDED),
        (bundle(MINE, replace(THEIRS, interfaces=(LinkName("eth1"),))), BOTH, DECIDED),
        (bundle(MINE, replace(THEIRS, tier=1)), BOTH, CAME_BACK),
        (bundle(replace(MINE, tier=1), THEIRS), BOTH, NEITHER),
        (bundle(THEIRS), BOTH, NEITHER),
        (BOTH, bundle(replace(THEIRS, tier=1), MINE), NEITHER),
        (BOTH, bundle(MINE, unfit=(B,)), NEITHER),
        (BOTH, replace(BOTH, serving=False), NEITHER),
        (bundle(MINE, replace(THEIRS, tier=1, preference=0)), BOTH, Regard(7.0, 7.0)),
        (bundle(MINE, ENDING, local=True), LOCAL, Regard(fit_since=7.0, serving_since=7.0)),
        (bundle(MINE, unfit=(B,), local=True), LOCAL, Regard(fit_since=7.0, serving_since=7.0)),
        (LOCAL, bundle(MINE, ENDING, local=True), NEITHER),
        (bundle(MINE, unfit=(B,), local=True), bundle(MINE, ENDING, local=True), CAME_BACK),
        (BOTH, replace(BOTH, failback=True), DECIDED),
        (BOTH, replace(BOTH, spread=("default/dns",)), DECIDED),
    ],
    ids=[
        "permitted",
        "fit again",
        "the Service asks for no endpoint there any more",
        "preferred",
        "this node is preferred less",
        "on other interfaces",
        "Ready again",
        "this node is Ready again",
        "this node is a candidate again",
        "not Ready any more",
        "unfit",
        "no endpoint serves",
        "preferred, and Ready again",
        "an endpoint there that is not ending",
        "an endpoint there again",
        "ending",
        "an endpoint there again, which is ending",
        "to go back",
        "to be apart",
    ],
)
def test_what_changed_and_why(former: Bundle, now: Bundle, found: Regard | None) -> None:
    assert regards({}, former, now, ME, 7.0).get(B) == found


def test_what_was_known_before_is_kept() -> None:
    known = {B: Regard(decided_at=3.0, fit_since=2.0)}
    assert regards(known, BOTH, BOTH, ME, 7.0) == known
    (again,) = regards(known, bundle(MINE, unfit=(B,)), BOTH, ME, 7.0).values()
    assert again == Regard(3.0, 7.0)
    assert regards(known, BOTH, bundle(MINE), ME, 7.0) == {}, "what is no candidate is nobody's successor"


def test_nothing_is_known_at_first() -> None:
    assert Regard() == Regard(LONG_AGO, LONG_AGO)
