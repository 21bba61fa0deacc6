"""Server URLs, in all the forms that users write, and without a secret in any error."""

from __future__ import annotations

import dataclasses
import itertools
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from natsync.errors import ConfigError
from natsync.policy.urls import DEFAULT_URL, ServerUrl, parse_servers, parse_url

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "text, redacted",
    [
        ("nats://example.com:4333", "nats://example.com:4333"),
        ("nats://example.com", "nats://example.com:4222"),
        ("tls://example.com", "tls://example.com:4222"),
        ("example.com:4333", "nats://example.com:4333"),
        ("example.com", "nats://example.com:4222"),
        ("example.com:", "nats://example.com:4222"),
        ("Example.COM", "nats://example.com:4222"),
        ("NATS://example.com", "nats://example.com:4222"),
        ("127.0.0.1:1", "nats://127.0.0.1:1"),
        ("localhost:65535", "nats://localhost:65535"),
        ("[::1]", "nats://[::1]:4222"),
        ("[::1]:4333", "nats://[::1]:4333"),
        ("nats://[2001:DB8::1]:4333", "nats://[2001:db8::1]:4333"),
        ("tls://[fe80::1%eth0]:4333", "tls://[fe80::1%eth0]:4333"),
        ("  example.com  ", "nats://example.com:4222"),
        ("example.com/", "nats://example.com:4222"),
        ("nats://example.com:4333/", "nats://example.com:4333"),
        ("under_score.example", "nats://under_score.example:4222"),
        ("user:pw@example.com", "nats://example.com:4222"),
    ],
)
def test_scheme_and_port_are_optional(text: str, redacted: str):
    url = parse_url(text)
    assert url.redacted == str(url) == redacted
    assert repr(url) == f"<ServerUrl {redacted}>"
    assert parse_url(redacted) == dataclasses.replace(url, user=None, password=None, token=None)


@pytest.mark.parametrize("scheme", ["nats", "tls"])
def test_another_scheme_may_be_the_default(scheme: str):
    assert parse_url("example.com", default_scheme=scheme).scheme == scheme
    assert parse_url("nats://example.com", default_scheme=scheme).scheme == "nats"


@pytest.mark.parametrize(
    "user_info, credentials",
    [
        ("", (None, None, None)),
        ("joe:pw@", ("joe", "pw", None)),
        ("joe:@", ("joe", "", None)),
        (":pw@", ("", "pw", None)),
        ("token@", (None, None, "token")),
        ("@", (None, None, None)),
        (":@", (None, None, None)),
        ("j%40e:p%3Aw%2F%25@", ("j@e", "p:w/%", None)),
        ("caf%C3%A9:p%20w@", ("caf\u00e9", "p w", None)),
        ("to%40ken%2Fx@", (None, None, "to@ken/x")),
        ("a+b:c+d@", ("a+b", "c+d", None)),
        ("joe:p:w@", ("joe", "p:w", None)),
        ("joe@home:pw@", ("joe@home", "pw", None)),
        ("$2a$11$ooo:pw@", ("$2a$11$ooo", "pw", None)),
    ],
)
@pytest.mark.parametrize("scheme", ["nats://", ""])
def test_credentials_are_percent_decoded(
    scheme: str, user_info: str, credentials: tuple[str | None, str | None, str | None]
):
    url = parse_url(f"{scheme}{user_info}example.com:4333")
    assert (url.user, url.password, url.token) == credentials
    assert (url.host, url.port) == ("example.com", 4333)


@pytest.mark.parametrize(
    "host, is_ip",
    [("127.0.0.1", True), ("[::1]", True), ("[fe80::1%eth0]", True), ("example.com", False), ("127.0.0.1.x", False)],
)
def test_an_address_is_told_from_a_name(host: str, is_ip: bool):
    assert parse_url(host).is_ip is is_ip


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("/", "is empty"),
        ("nats://", "no host|goes on after the port"),
        ("nats://:4222", "no host"),
        ("user:pw@", "no host"),
        ("http://example.com", "'http'; natsync knows nats and tls"),
        ("ws://example.com", "'ws'"),
        ("example.com:port", "cannot be read"),
        ("example.com:-1", "cannot be read"),
        ("example.com:65536", "cannot be read"),
        ("example.com:0", "is 0"),
        ("::1", "cannot be read"),
        ("[::1", "cannot be read"),
        ("exam ple.com", "white space"),
        ("example.com\x00", "control characters"),
        ("example.com:42\r\n22", "white space or control"),
        ("example.com/path", "goes on after the port"),
        ("example.com?tls=1", "goes on after the port"),
        ("example.com#x", "goes on after the port"),
        ("exa\u2100mple.com", "cannot be read"),
    ],
)
def test_what_cannot_be_read_says_why_and_what_to_write(text: str, why: str):
    with pytest.raises(ConfigError, match=why) as caught:
        parse_url(text)
    assert caught.value.option == "servers"
    assert "write nats://[user:password@|token@]host[:port]" in str(caught.value)
    assert caught.value.__context__ is None  # urllib quotes what it cannot read


# Secrets.


FORMS = ["joe:{0}@host:4222", "{0}@host:4222", "joe:{0}@", "{0}@:4222", "{0}@host:port"]


@pytest.mark.parametrize("char", [*string.punctuation, " ", "\t", "\u2100", "://", "%zz"])
def test_no_error_quotes_a_secret_that_was_not_percent_encoded(char: str):
    """People write passwords as they are: with "/", "#" or "@" in them the URL falls apart in the middle of one."""
    for scheme, form in itertools.product(["nats://", "tls://", "http://", ""], FORMS):
        text = scheme + form.format(f"{SECRET}{char}{SECRET}")
        try:
            shown = repr(parse_url(text))
        except ConfigError as exc:
            shown = f"{exc} {exc!r}"
        assert SECRET not in shown, text


@given(st.text(max_size=60))
@example("nats://[v1.x]")
@example("nats://\u0660")
@example("a:\u0661@b:\u0662")
def test_any_text_is_either_a_url_or_a_config_error(text: str):
    try:
        url = parse_url(text)
    except ConfigError:
        return
    assert url.host
    assert 1 <= url.port <= 65535
    assert url.scheme in ("nats", "tls")
    assert parse_url(url.redacted) == dataclasses.replace(url, user=None, password=None, token=None)


@given(st.text(min_size=1), st.text(min_size=1))
def test_percent_encoded_credentials_come_back_whole(user: str, password: str):
    def quote(text: str) -> str:
        return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "replace"))

    url = parse_url(f"{quote(user)}:{quote(password)}@host")
    assert (url.user, url.password) == (
        user.encode("utf-8", "replace").decode(),
        password.encode("utf-8", "replace").decode(),
    )


# Several servers.


@pytest.mark.parametrize(
    "servers, urls",
    [
        (None, [DEFAULT_URL]),
        ("a", ["nats://a:4222"]),
        ("a,b", ["nats://a:4222", "nats://b:4222"]),
        (" a:1 , tls://b:2 ,", ["nats://a:1", "tls://b:2"]),
        (["a", "b"], ["nats://a:4222", "nats://b:4222"]),
        (("b", "a"), ["nats://b:4222", "nats://a:4222"]),
        (["a,b", "c"], ["nats://a:4222", "nats://b:4222", "nats://c:4222"]),
        ((name for name in "ab"), ["nats://a:4222", "nats://b:4222"]),
        (["a", "A:4222", "nats://a"], ["nats://a:4222"]),
        (["a:1", "a:2"], ["nats://a:1", "nats://a:2"]),
        ("[::1]:1,[::1]:2", ["nats://[::1]:1", "nats://[::1]:2"]),
    ],
)
def test_lists_of_servers(servers: Any, urls: list[str]):
    assert [url.redacted for url in parse_servers(servers)] == urls


def test_of_equal_addresses_the_first_one_is_kept():
    (url,) = parse_servers(["joe:pw@a", "a", "token@a"])
    assert (url.user, url.password, url.token) == ("joe", "pw", None)


@pytest.mark.parametrize(
    "servers, urls",
    [
        (["a", "tls://a"], ["tls://a:4222"]),
        (["tls://a", "nats://a"], ["tls://a:4222"]),
        (["a:1", "tls://a:2"], ["nats://a:1", "tls://a:2"]),
    ],
)
def test_of_equal_addresses_one_that_asks_for_tls_is_enough(servers: list[str], urls: list[str]):
    assert [url.redacted for url in parse_servers(servers)] == urls


def test_tls_of_an_equal_address_leaves_the_rest_as_it_was():
    (url,) = parse_servers(["joe:pw@a", "tls://token@a"])
    assert (url.scheme, url.user, url.password, url.token) == ("tls", "joe", "pw", None)


@pytest.mark.parametrize(
    "servers, why",
    [
        ("", "is empty"),
        (" , ", "is empty"),
        ([], "give at least one URL"),
        ([""], "is empty"),
        (["a", ""], "is empty"),
        (["a,"], "is empty"),
        (7, "not int"),
        (object(), "not object"),
        ([7], "as str, not int"),
        (["a", None], "as str, not NoneType"),
        (b"nats://a", "as str, not int"),
        ([b"nats://a"], "as str, not bytes"),
        (["a", "http://b"], "'http'"),
    ],
)
def test_what_is_no_list_of_servers(servers: Any, why: str):
    with pytest.raises(ConfigError, match=why) as caught:
        parse_servers(servers)
    assert caught.value.option == "servers"


def test_a_url_is_a_value():
    assert parse_url("a") == ServerUrl("nats", "a", 4222)
    assert len({parse_url("a"), parse_url("a:4222"), parse_url("b")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse_url("a").host = "b"  # type: ignore[misc]
