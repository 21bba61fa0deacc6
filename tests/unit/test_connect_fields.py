"""What the client says of itself in CONNECT."""

from __future__ import annotations

from typing import Any

import pytest

from natsync._version import __version__
from natsync.errors import ConfigError
from natsync.policy.connect_fields import connect_fields
from natsync.policy.options import make_options
from natsync.policy.urls import parse_url
from natsync.protocol.commands import encode_connect
from natsync.protocol.info import ServerInfo

CREDENTIALS = {"user", "pass", "auth_token", "jwt", "nkey", "sig"}


def fields(url: str = "a", info: ServerInfo | None = None, **options: Any) -> dict[str, Any]:
    return dict(connect_fields(make_options(None, options), parse_url(url), info or ServerInfo(headers=True)))


def credentials(url: str = "a", **options: Any) -> dict[str, Any]:
    return {name: value for name, value in fields(url, **options).items() if name in CREDENTIALS}


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
    said = fields("a", ServerInfo(headers=headers))
    assert (said["headers"], said["no_responders"]) == (headers, headers)


@pytest.mark.parametrize(
    "url, options, said",
    [
        ("a", {}, {}),
        ("joe:pw@a", {}, {"user": "joe", "pass": "pw"}),
        ("joe:@a", {}, {"user": "joe", "pass": ""}),
        ("tok@a", {}, {"auth_token": "tok"}),
        ("a", {"user": "joe", "password": "pw"}, {"user": "joe", "pass": "pw"}),
        ("a", {"token": "tok"}, {"auth_token": "tok"}),
        ("a", {"token_cb": lambda: "tok"}, {"auth_token": "tok"}),
        ("a", {"user_info_cb": lambda: ("joe", "pw")}, {"user": "joe", "pass": "pw"}),
        ("joe:pw@a", {"token": "tok"}, {"user": "joe", "pass": "pw"}),
        ("tok@a", {"user": "joe", "password": "pw"}, {"auth_token": "tok"}),
    ],
)
def test_one_kind_of_credentials_is_said_and_the_urls_own_win(url: str, options: dict[str, Any], said: dict[str, str]):
    assert credentials(url, **options) == said


@pytest.mark.parametrize("option", ["token_cb", "user_info_cb"])
def test_a_callback_is_not_asked_when_the_url_has_credentials(option: str):
    def fail() -> None:
        raise AssertionError("it might ask a password store")

    assert credentials("joe:pw@a", **{option: fail}) == {"user": "joe", "pass": "pw"}


def test_callbacks_are_asked_at_every_connect():
    answers = iter(["first", "second"])
    options = make_options(None, {"token_cb": lambda: next(answers)})
    for token in ("first", "second"):
        assert connect_fields(options, parse_url("a"), ServerInfo())["auth_token"] == token


@pytest.mark.parametrize(
    "option, answer, takes",
    [
        ("token_cb", None, "a token as str, not NoneType"),
        ("token_cb", b"s3cr3t", "a token as str, not bytes"),
        ("user_info_cb", None, r"\(user, password\)"),
        ("user_info_cb", "s3cr3t", r"\(user, password\)"),
        ("user_info_cb", ("joe",), r"\(user, password\)"),
        ("user_info_cb", ("joe", "s3cr3t", "x"), r"\(user, password\)"),
        ("user_info_cb", ["joe", "s3cr3t"], r"\(user, password\)"),
        ("user_info_cb", ("joe", b"s3cr3t"), r"\(user, password\) as two str, not bytes"),
        ("user_info_cb", (None, "s3cr3t"), r"\(user, password\) as two str, not NoneType"),
    ],
)
def test_an_answer_that_is_no_credential_is_told_without_quoting_it(option: str, answer: Any, takes: str):
    with pytest.raises(ConfigError, match=f"{option} must return {takes}") as caught:
        fields("a", None, **{option: lambda: answer})
    assert caught.value.option == option
    assert "s3cr3t" not in str(caught.value)


def test_what_a_callback_raises_goes_through():
    class VaultError(Exception):
        pass

    def fail() -> str:
        raise VaultError

    with pytest.raises(VaultError):
        fields(token_cb=fail)


def test_the_fields_can_be_said():
    assert encode_connect(fields("joe:pw@a", name="n")).startswith(b'CONNECT {"verbose":false,')
