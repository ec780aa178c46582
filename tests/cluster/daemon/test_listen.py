"""Where a daemon listens, as text."""

from __future__ import annotations

import argparse

import pytest

from cluster.daemon.listen import DEFAULT, add_listen, parse_listen


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("127.0.0.1:7472", ("127.0.0.1", 7472)),
        (":80", ("", 80)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::]:80", ("::", 80)),
        ("[::1]:0", ("::1", 0)),
        ("[192.0.2.1]:7472", ("192.0.2.1", 7472)),
    ],
)
def test_listen_addresses(text: str, meaning: tuple[str, int]) -> None:
    assert parse_listen(text) == meaning
    assert parse_listen(str(parse_listen(text))) == meaning


@pytest.mark.parametrize("text", ["7472", "127.0.0.1:", "127.0.0.1:99999", "::1:80", "host:http", "1:²", "[]:80"])
def test_a_listen_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not ADDRESS:PORT"):
        parse_listen(text)


def test_the_option_may_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_listen(parser)
    assert parser.parse_args([]).listen is None
    assert parser.parse_args(["--listen", ":1", "--listen=[::1]:2"]).listen == [("", 1), ("::1", 2)]
    with pytest.raises(SystemExit):
        parser.parse_args(["--listen", "nowhere"])
    assert '"nowhere" is not ADDRESS:PORT' in capsys.readouterr().err
    assert str(DEFAULT) in parser.format_help()
