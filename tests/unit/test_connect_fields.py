"""What the client says of itself in CONNECT."""

from __future__ import annotations

from typing import Any

import pytest

from natsync._version import __version__
from natsync.policy.connect_fields import connect_fields
from natsync.policy.options import make_options
from natsync.protocol.commands import encode_connect
from natsync.protocol.info import ServerInfo


def fields(info: ServerInfo | None = None, **options: Any) -> dict[str, Any]:
    return dict(connect_fields(make_options(None, options), info or ServerInfo(headers=True), {}))


def test_the_defaults():
    assert fields() == {
        "verbose": False,
        "pedantic": False,
        "tls_required": False,
        "name": "",
        "lang": "python",
        "version": __version__,
        "protocol": 1,
        "echo": True,
        "headers": True,
        "no_responders": True,
    }


@pytest.mark.parametrize(
    "option, value, field, said",
    [
        ("verbose", True, "verbose", True),
        ("pedantic", True, "pedantic", True),
        ("no_echo", True, "echo", False),
        ("name", "web", "name", "web"),
    ],
)
def test_options_are_said(option: str, value: Any, field: str, said: Any):
    assert fields(**{option: value})[field] == said


@pytest.mark.parametrize("headers", [True, False])
def test_headers_and_no_responders_are_asked_for_where_the_server_has_them(headers: bool):
    said = fields(ServerInfo(headers=headers))
    assert (said["headers"], said["no_responders"]) == (headers, headers)


def test_what_the_user_wishes_of_tls_is_said():
    assert connect_fields(make_options(None, {}), ServerInfo(), {}, tls=True)["tls_required"] is True


def test_the_fields_can_be_said():
    said = connect_fields(make_options(None, {"name": "n"}), ServerInfo(), {"user": "joe", "pass": "pw"})
    assert encode_connect(said).startswith(b'CONNECT {"verbose":false,')
    assert b'"user":"joe","pass":"pw"' in encode_connect(said)
