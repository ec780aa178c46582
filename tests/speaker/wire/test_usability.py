"""Whether there is an interface to announce on: one line when that changes, and the reasons for whoever asks."""

from __future__ import annotations

import logging

import pytest

from speaker.link import LinkName, Mac
from speaker.wire import netlink
from speaker.wire.answering import Answering
from speaker.wire.families import RESOLUTIONS
from speaker.wire.links import DUMPS, LinkTable
from speaker.wire.medium import FRAMES
from speaker.wire.netlink import Interface
from speaker.wire.open_links import OpenLinks
from speaker.wire.responders import Responders
from speaker.wire.usability import Usability

ETH0 = Interface(2, LinkName("eth0"), Mac(bytes(5) + b"\x01"), carrier=True, unfit=None, downs=0)


def no_links() -> OpenLinks:
    return OpenLinks(FRAMES, Responders(RESOLUTIONS, Answering(RESOLUTIONS)), lambda _: None, lambda _: None)


def complete(table: LinkTable) -> None:
    for dump in DUMPS:
        table.begin_dump(dump)
        if dump == netlink.LINKS:
            table.receive(ETH0)
        table.end_dump()


def test_no_usable_interface_is_one_line_with_the_reasons_and_none_before_they_are_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    usability, table, links = Usability(), LinkTable(), no_links()
    usability.look(table, links)
    assert (usability.reasons, caplog.messages) == ({}, []), "the kernel has not said yet"
    complete(table)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            usability.changed()
            usability.look(table, links)
    assert usability.reasons == {"eth0": "has no IPv4 and no link-local IPv6 address"}
    assert caplog.messages == ["no usable interface"]
    assert vars(caplog.records[0])["interfaces"] == usability.reasons


def test_reasons_are_worked_out_again_only_after_a_change() -> None:
    usability, table, links = Usability(), LinkTable(), no_links()
    complete(table)
    usability.look(table, links)
    before = usability.reasons
    usability.look(table, links)
    assert usability.reasons is before
    table.receive(netlink.Removed(ETH0))
    usability.changed()
    usability.look(table, links)
    assert usability.reasons == {}
