"""INFO: what a server says of itself.

Sans-IO. Everything in an INFO is the word of a peer that may not have proved who it is, so sizes, types and ranges
are checked here and nobody behind needs to. The nonce is shown in no text and no error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NoReturn

from natsync.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ServerInfo", "parse_info"]

_MAX_PAYLOAD = 1024 * 1024
# The servers' largest number is an unsigned 64-bit client id.
_MAX_NUMBER = 2**64 - 1
_MAX_DIGITS = 20
_MAX_INFO = 1024 * 1024
# Servers send some 20 characters; a client signs what it is given, so it is given no more than a nonce.
_MAX_NONCE = 256


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server's INFO; a field that it did not send has its default. Sizes are in bytes.

    Attributes:
        proto: 1 if the server sends INFO again when its cluster changes, and knows `no_echo`.
        max_payload: Headers and data of one message together.
        ldm: Lame duck mode: the server will go down soon.
        connect_urls: Other members of the cluster, as `host:port`; `ws_connect_urls` for WebSocket.
        api_lvl: JetStream API level.
        extra: Fields that are not known here, as their JSON values. Not to be changed.
    """

    server_id: str = ""
    server_name: str = ""
    version: str = ""
    proto: int = 0
    git_commit: str = ""
    go: str = ""
    host: str = ""
    port: int = 0
    ip: str = ""
    headers: bool = False
    max_payload: int = _MAX_PAYLOAD
    jetstream: bool = False
    client_id: int = 0
    client_ip: str = ""
    auth_required: bool = False
    tls_required: bool = False
    tls_verify: bool = False
    tls_available: bool = False
    nonce: str = field(default="", repr=False)
    cluster: str = ""
    cluster_dynamic: bool = False
    domain: str = ""
    connect_urls: tuple[str, ...] = ()
    ws_connect_urls: tuple[str, ...] = ()
    ldm: bool = False
    xkey: str = ""
    api_lvl: int = 0
    acc_is_sys: bool = False
    connect_info: bool = False
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)


def parse_info(payload: bytes) -> ServerInfo:
    """Read the JSON of an INFO; a null stands for the field's default.

    Raises:
        ProtocolError: It is too long, no JSON object, or a known field has a value of a wrong type or range.
    """
    if len(payload) > _MAX_INFO:
        raise ProtocolError(f"the server's INFO has {len(payload)} bytes; at most {_MAX_INFO} are taken")
    decoded = _decode(payload)
    if not isinstance(decoded, dict):
        raise ProtocolError("the server's INFO is not a JSON object")
    known: dict[str, Any] = {}
    extra: dict[str, object] = {}
    for name, value in decoded.items():
        read = _READERS.get(name)
        if read is None:
            extra[name] = value
        elif value is not None:
            known[name] = read(name, value)
    return ServerInfo(**known, extra=extra)


def _decode(payload: bytes) -> object:
    # The errors of json carry the whole document, and with it the nonce: none of them may become the context of ours.
    try:
        return json.loads(payload.decode("utf-8"), parse_constant=_refuse, parse_int=_bounded_int)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _bounded_int(digits: str) -> int:
    # Reading a number of a million digits would take seconds.
    if len(digits) > _MAX_DIGITS:
        raise ValueError("number too long")
    return int(digits)


def _text(name: str, value: object) -> str:
    # JSON can spell half of a surrogate pair, which nothing behind could print or encode.
    if isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value):
        return value
    raise _wrong(name, "text")


def _nonce(name: str, value: object) -> str:
    if isinstance(value, str) and len(value) <= _MAX_NONCE and value.isascii() and value.isprintable():
        return value
    raise _wrong(name, f"at most {_MAX_NONCE} printable characters of ASCII")


def _number(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_NUMBER:
        return value
    raise _wrong(name, "a whole number from 0")


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong(name, "true or false")


def _texts(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(_text(name, each) for each in value)
    raise _wrong(name, "a list of texts")


def _wrong(name: str, takes: str) -> ProtocolError:
    return ProtocolError(f"the server's INFO has a wrong {name}: it must be {takes}")


_READER_OF_TYPE: dict[Any, Callable[[str, object], object]] = {
    "str": _text,
    "int": _number,
    "bool": _flag,
    "tuple[str, ...]": _texts,
}
_READERS = {each.name: _READER_OF_TYPE[each.type] for each in fields(ServerInfo) if each.name != "extra"}
_READERS["nonce"] = _nonce
