"""When the announcer gets what heartbeats are authenticated with, and what is said while something is missing."""

from __future__ import annotations

import base64

import pytest

from cluster.objects import ObjectMeta, Secret
from speaker.api.authentication import Authentication
from speaker.channel import Credentials

OLD, NEW = bytes(range(32)), bytes(range(32, 64))


def secret(**keys: bytes) -> Secret:
    data = {name: base64.b64encode(key).decode() for name, key in keys.items()}
    return Secret(ObjectMeta(name="berthlb-heartbeat"), data=data)


def test_both_are_sent_together_once_and_again_when_one_changes() -> None:
    known = Authentication(None, "metallb-system")
    assert known.take() is None
    known.set_cluster("uid")
    assert known.take() is None
    known.set_secret(secret(current=OLD))
    assert known.take() == Credentials("uid", (OLD,))
    assert known.take() is None
    known.set_secret(secret(current=OLD))
    assert known.take() is None, "it is the same"
    known.set_secret(secret(current=NEW, previous=OLD))
    assert known.take() == Credentials("uid", (NEW, OLD))


@pytest.mark.parametrize("after", [None, secret(), secret(current=b"short")], ids=["deleted", "empty", "too short"])
def test_keys_that_there_were_go_on_working(after: Secret | None) -> None:
    known = Authentication(None, "metallb-system")
    known.set_cluster("uid")
    known.set_secret(secret(current=OLD))
    assert known.take()
    known.set_secret(after)
    assert known.take() is None
    assert known.missing() == []


@pytest.mark.parametrize(
    ("given", "there", "says"),
    [
        (None, None, "Secret metallb-system/berthlb-heartbeat does not exist"),
        (None, secret(), "has no current"),
        (None, secret(current=b"short"), "has 5 bytes"),
        (None, secret(current=OLD), ""),
        (OLD, None, ""),
    ],
    ids=["none", "empty", "too short", "good", "given on the command line"],
)
def test_what_is_missing_says_why(given: bytes | None, there: Secret | None, says: str) -> None:
    known = Authentication(given, "metallb-system")
    known.set_secret(there)
    missing = known.missing()
    assert missing[-1] == "the cluster's identity is not known"
    known.set_cluster("uid")
    said = "; ".join(known.missing())
    assert says in said
    assert bool(said) is bool(says)
