from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsync.errors import ProtocolError
from natsync.protocol.info import ServerInfo, parse_info

FULL: dict[str, Any] = {
    "server_id": "NABC",
    "server_name": "n1",
    "version": "2.12.0",
    "proto": 1,
    "git_commit": "abc",
    "go": "go1.25",
    "host": "0.0.0.0",
    "port": 4222,
    "ip": "127.0.0.1",
    "headers": True,
    "max_payload": 1048576,
    "jetstream": True,
    "client_id": 2**64 - 1,
    "client_ip": "127.0.0.1",
    "auth_required": True,
    "tls_required": True,
    "tls_verify": True,
    "tls_available": True,
    "nonce": "s3cr3t-n0nce",
    "cluster": "C",
    "cluster_dynamic": True,
    "domain": "hub",
    "connect_urls": ["127.0.0.1:4222", "[::1]:4222"],
    "ws_connect_urls": ["127.0.0.1:8080"],
    "ldm": True,
    "xkey": "XABC",
    "api_lvl": 2,
    "acc_is_sys": True,
    "connect_info": True,
}


def encode(fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_every_field():
    info = parse_info(encode(FULL))
    for name, value in FULL.items():
        assert getattr(info, name) == (tuple(value) if isinstance(value, list) else value)
    assert info.extra == {}
    assert {each.name for each in dataclasses.fields(info)} == {*FULL, "extra"}


@pytest.mark.parametrize("payload", [b"{}", b" {} \t", encode(dict.fromkeys(FULL))])
def test_defaults(payload: bytes):
    """A field that is missing or null has its default."""
    info = parse_info(payload)
    assert info == ServerInfo()
    assert (info.max_payload, info.proto, info.headers, info.connect_urls) == (1048576, 0, False, ())


def test_unknown_fields_are_kept():
    info = parse_info(b'{"server_id":"x","leafnode":true,"deep":{"a":[1,2.5,null]}}')
    assert info.server_id == "x"
    assert info.extra == {"leafnode": True, "deep": {"a": [1, 2.5, None]}}


WRONG = {
    "text": (["server_id", "version", "host", "nonce", "cluster"], [1, True, [], {}, 1.5, "\ud800"]),
    "number": (["proto", "port", "max_payload", "client_id"], ["1", True, -1, 1.0, 1e3, [], {}, 2**64]),
    "flag": (["headers", "tls_required", "ldm", "jetstream"], ["true", 1, 0, [], {}]),
    "texts": (["connect_urls", "ws_connect_urls"], ["a:1", {}, 1, True, [1], ["a", None], [["a"]], ["\udfff"]]),
}


@pytest.mark.parametrize(
    "name, value", [(name, value) for names, values in WRONG.values() for name in names for value in values]
)
def test_wrong_type(name: str, value: object):
    with pytest.raises(ProtocolError, match=f"wrong {name}"):
        parse_info(encode({**FULL, name: value}))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"INFO"',
        b"{'a':1}",
        b'{"a":1} x',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"port":NaN}',
        b'{"server_id":"\xff"}',
        b"\xef\xbb\xbf{}",
        '{"server_id":"x"}'.encode("utf-16"),
        b'{"a":' + b"9" * 21 + b"}",
        b"[" * 500_000,
        b'{"a":' * 200_000,
    ],
)
def test_no_json_object(payload: bytes):
    with pytest.raises(ProtocolError, match="not a JSON object"):
        parse_info(payload)


def test_too_long():
    with pytest.raises(ProtocolError, match="1048576"):
        parse_info(b" " * (1024 * 1024 - 1) + b"{}")


def test_long_number_costs_nothing():
    start = time.perf_counter()
    with pytest.raises(ProtocolError):
        parse_info(b'{"port":' + b"9" * 1_000_000 + b"}")
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("broken", [b"x", b',"port":-1}', b',"port":"x"}', b',"nonce":5}', b',"a":NaN}'])
def test_errors_do_not_hold_the_nonce(broken: bytes):
    payload = b'{"nonce":"s3cr3t-n0nce"' + broken
    with pytest.raises(ProtocolError) as caught:
        parse_info(payload)
    error: BaseException = caught.value
    assert "s3cr3t" not in repr(error)
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("nonce", ["", "n", "n" * 256, "-_+/=~ "])
def test_nonces(nonce: str):
    assert parse_info(encode({"nonce": nonce})).nonce == nonce


@pytest.mark.parametrize("nonce", ["n" * 257, "n\u00e4", "n\n", "n\0", 5, ["n"], {"n": "n"}, True])
def test_what_is_no_nonce(nonce: object):
    with pytest.raises(ProtocolError, match="wrong nonce: it must be at most 256 printable"):
        parse_info(encode({"nonce": nonce}))


def test_repr_hides_the_nonce():
    assert "s3cr3t" not in repr(parse_info(encode(FULL)))


def test_value_semantics():
    info = parse_info(encode({**FULL, "new": [1]}))
    for clone in (pickle.loads(pickle.dumps(info)), copy.deepcopy(info), dataclasses.replace(info)):
        assert clone == info
        assert hash(clone) == hash(info)
    assert dataclasses.asdict(info)["extra"] == {"new": [1]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.port = 1  # type: ignore[misc]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.binary(max_size=40) | st.dictionaries(st.sampled_from([*FULL, "other"]), json_values, max_size=5).map(encode))
def test_anything_is_read_or_refused(payload: bytes):
    try:
        info = parse_info(payload)
    except ProtocolError:
        return
    assert info.max_payload >= 0
    assert all(type(url) is str for url in info.connect_urls)
