from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsync.errors import BadHeaderError, NatsError
from natsync.headers import Headers
from natsync.protocol.header_block import encode_header_block, is_no_responders, parse_header_block


@pytest.mark.parametrize(
    "headers, block",
    [
        ({}, b"NATS/1.0\r\n\r\n"),
        ({"Bar": "Baz"}, b"NATS/1.0\r\nBar: Baz\r\n\r\n"),
        ({"a": ["1", "2"], "A": "3"}, b"NATS/1.0\r\na: 1\r\na: 2\r\nA: 3\r\n\r\n"),
        ({"a": " \t x y\t "}, b"NATS/1.0\r\na: x y\r\n\r\n"),
        ({"a": ""}, b"NATS/1.0\r\na: \r\n\r\n"),
        ({"a": "caf\u00e9: \U0001f389"}, b"NATS/1.0\r\na: caf\xc3\xa9: \xf0\x9f\x8e\x89\r\n\r\n"),
        (Headers({"a": "b"}, status=100, description="Idle Heartbeat"), b"NATS/1.0 100 Idle Heartbeat\r\na: b\r\n\r\n"),
        (Headers(status=503), b"NATS/1.0 503\r\n\r\n"),
        (Headers.unchecked([("a", "\udcff")], 7, None), b"NATS/1.0 007\r\na: \xff\r\n\r\n"),
    ],
)
def test_encode(headers, block: bytes):
    assert encode_header_block(headers) == block


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"a": "x\r\ny"}, {"a": "\ud800"}, Headers({"a": "x\udfff"})])
def test_encode_refuses(headers):
    with pytest.raises(BadHeaderError) as caught:
        encode_header_block(headers)
    assert caught.value.option == "headers"


PIECES = st.text(st.sampled_from("ab:- \t\r\n\0\u00e9"), max_size=6)


@given(st.dictionaries(PIECES, PIECES | st.lists(PIECES, max_size=2), max_size=3))
def test_a_dict_is_encoded_as_headers_are(plain):
    """A dict has a short way of its own, which must let nothing else pass, and write nothing else."""
    try:
        expected = encode_header_block(Headers(plain))
    except BadHeaderError as exc:
        with pytest.raises(BadHeaderError, match=re.escape(str(exc))):
            encode_header_block(plain)
    else:
        assert encode_header_block(plain) == expected


def test_a_line_break_in_a_name_makes_no_second_header():
    with pytest.raises(BadHeaderError):
        encode_header_block({"a: 1\r\nb": "2"})


GOOD = [
    (b"NATS/1.0\r\n\r\n", [], None, None),
    (b"NATS/1.0\n\n", [], None, None),
    (b"NATS/1.0 \t\r\n\r\n", [], None, None),
    (b"NATS/1.0\r\na: 1\r\nA:2\r\na:\t 3\r\n\r\n", [("a", "1"), ("a", "3"), ("A", "2")], None, None),
    (b"NATS/1.0\na: 1\nb: 2\n\n", [("a", "1"), ("b", "2")], None, None),
    (b"NATS/1.0\r\na: x  \r\n\r\n", [("a", "x  ")], None, None),
    (b"NATS/1.0\r\na:\r\nb: :\r\n\r\n", [("a", ""), ("b", ":")], None, None),
    (b"NATS/1.0\r\n: nameless\r\na: 1\r\n\r\n", [("a", "1")], None, None),
    (b"NATS/1.0\r\na b : 1\r\n\r\n", [("a b ", "1")], None, None),
    (b"NATS/1.0\r\n\xc3\xa4: \xff\r\n\r\n", [("\u00e4", "\udcff")], None, None),
    (b"NATS/1.0\r\na: x\ry\x00\r\n\r\n", [("a", "x\ry\x00")], None, None),
    (b"NATS/1.0\r\na: 1\r\n\r\nwhatever", [("a", "1")], None, None),
    (b"NATS/1.0 503\r\n\r\n", [], 503, None),
    (b"NATS/1.0 503 \r\n\r\n", [], 503, None),
    (b"NATS/1.0\t 503 No Responders \r\n\r\n", [], 503, "No Responders"),
    (b"NATS/1.0 503 No Responders\r\na: 1\r\n\r\n", [("a", "1")], 503, "No Responders"),
    (b"NATS/1.0503\r\n\r\n", [], 503, None),
    (b"NATS/1.0 404x\xff\r\n\r\n", [], 404, "x\udcff"),
    (b"NATS/1.0 007 Bond\r\n\r\n", [], 7, "Bond"),
]


@pytest.mark.parametrize("block, pairs, status, description", GOOD)
def test_parse(block: bytes, pairs: list[tuple[str, str]], status: int | None, description: str | None):
    headers = parse_header_block(block)
    assert headers.items() == pairs
    assert (headers.status, headers.description) == (status, description)
    assert is_no_responders(block, b"") == (status == 503)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\r\n\r\n",
        b"NATS/1.0",
        b"NATS/1.0\r\n",
        b"NATS/1.0\r\na: 1",
        b"NATS/1.0\r\na: 1\r\n",
        b"NATS/1.0\r\na: 1\r\n\r",
        b"NATS/1.0\r\nno colon\r\n\r\n",
        b"NATS/1.0\r\na: 1\r\n folded\r\n\r\n",
        b"NATS/1.1\r\n\r\n",
        b"NATS/2.0\r\n\r\n",
        b"nats/1.0\r\n\r\n",
        b" NATS/1.0\r\n\r\n",
        b"HTTP/1.0\r\n\r\n",
        b"NATS/1.0 5\r\n\r\n",
        b"NATS/1.0 50\r\n\r\n",
        b"NATS/1.0 50x\r\n\r\n",
        b"NATS/1.0 abc\r\n\r\n",
        b"NATS/1.0 \xd9\xa1\xd9\xa1\xd9\xa1\r\n\r\n",
    ],
)
def test_parse_refuses(block: bytes):
    with pytest.raises(BadHeaderError):
        parse_header_block(block)


def test_errors_show_a_bounded_excerpt():
    for block in (b"x" * 10_000, b"NATS/1.0\r\n" + b"x" * 10_000 + b"\r\n\r\n"):
        with pytest.raises(BadHeaderError) as caught:
            parse_header_block(block)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "block, data, expected",
    [
        (b"NATS/1.0 503\r\n\r\n", b"", True),
        (b"NATS/1.0 503 No Responders\r\n\r\n", b"", True),
        (b"NATS/1.0 503\r\n\r\n", b"x", False),
        (b"NATS/1.0 404\r\n\r\n", b"", False),
        (b"NATS/1.0\r\na: 503\r\n\r\n", b"", False),
        (b"NATS/1.0\r\n503: a\r\n\r\n", b"", False),
        (b"", b"", False),
        (None, b"", False),
    ],
)
def test_is_no_responders(block: bytes | None, data: bytes, expected: bool):
    assert is_no_responders(block, data) is expected


names = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=6)
values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=12).map(lambda v: v.strip(" \t"))
descriptions = st.none() | values.filter(bool)


@given(st.lists(st.tuples(names, values), max_size=6), st.none() | st.integers(100, 999), descriptions)
def test_parsed_is_what_was_encoded(pairs: list[tuple[str, str]], status: int | None, description: str | None):
    headers = Headers(pairs, status=status, description=description if status else None)
    assert parse_header_block(encode_header_block(headers)) == headers


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"NATS/1.0" + tail + b"\r\n\r\n"))
def test_received_is_read_or_refused_and_goes_on_as_it_came(block: bytes):
    try:
        headers = parse_header_block(block)
    except NatsError:
        return
    assert is_no_responders(block, b"") == (headers.status == 503)
    again = parse_header_block(encode_header_block(headers))
    assert again.items() == [(name, value.strip(" \t")) for name, value in headers.items()]
    assert again.status == headers.status
