from __future__ import annotations

import json

import pytest

from natsync.errors import BadSubjectError
from natsync.protocol.commands import (
    PING_COMMAND,
    PONG_COMMAND,
    encode_connect,
    encode_hpub,
    encode_pub,
    encode_sub,
    encode_unsub,
)

BLOCK = b"NATS/1.0\r\nBar: Baz\r\n\r\n"


@pytest.mark.parametrize(
    "made, expected",
    [
        (PING_COMMAND, b"PING\r\n"),
        (PONG_COMMAND, b"PONG\r\n"),
        (encode_pub(b"foo", None, b"hello"), b"PUB foo 5\r\nhello\r\n"),
        (encode_pub(b"foo", None, b""), b"PUB foo 0\r\n\r\n"),
        (encode_pub(b"foo", b"_INBOX.1", b"a\r\nb"), b"PUB foo _INBOX.1 4\r\na\r\nb\r\n"),
        (encode_hpub(b"foo", None, BLOCK, b"hello"), b"HPUB foo 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n"),
        (encode_hpub(b"foo", b"r", BLOCK, b""), b"HPUB foo r 22 22\r\nNATS/1.0\r\nBar: Baz\r\n\r\n\r\n"),
        (encode_sub("foo.*", None, 1), b"SUB foo.* 1\r\n"),
        (encode_sub("foo", "workers", 12), b"SUB foo workers 12\r\n"),
        (encode_sub("caf\u00e9", "\udcff", 1), b"SUB caf\xc3\xa9 \xff 1\r\n"),
        (encode_unsub(1), b"UNSUB 1\r\n"),
        (encode_unsub(1, None), b"UNSUB 1\r\n"),
        (encode_unsub(1, 10), b"UNSUB 1 10\r\n"),
        (encode_connect({}), b"CONNECT {}\r\n"),
        (
            encode_connect({"verbose": False, "protocol": 1, "name": None, "lang": "python"}),
            b'CONNECT {"verbose":false,"protocol":1,"lang":"python"}\r\n',
        ),
    ],
)
def test_wire_bytes(made: bytes, expected: bytes):
    assert made == expected


def test_connect_is_one_line_whatever_the_values_hold():
    fields = {"name": 'a\r\nPUB x 0\r\n\r\n"\u2028', "user": "caf\u00e9", "pass": "\x00\x7f"}
    line = encode_connect(fields)
    assert line.count(b"\r") == line.count(b"\n") == 1
    assert line.isascii()
    assert json.loads(line[len(b"CONNECT ") :]) == fields


def test_connect_refuses_what_json_has_not():
    with pytest.raises(ValueError, match="JSON"):
        encode_connect({"protocol": float("nan")})


def test_sub_refuses_lone_surrogates():
    with pytest.raises(BadSubjectError):
        encode_sub("\ud800", None, 1)


def test_a_large_payload_is_not_changed():
    data = bytes(range(256)) * 4096
    assert encode_pub(b"foo", None, data) == b"PUB foo 1048576\r\n" + data + b"\r\n"
