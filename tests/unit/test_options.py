"""What may be asked of connect(): each option's type, default and contradictions, checked before any I/O."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import pickle
import ssl
import threading
from typing import Any

import pytest

from natsync.errors import ConfigError
from natsync.policy.connect_options import ConnectOptions
from natsync.policy.options import Options, make_options
from natsync.policy.urls import ServerUrl, parse_url

MIB = 1024 * 1024
# The contract's defaults.
DEFAULTS: dict[str, Any] = {
    "name": None,
    **dict.fromkeys(["verbose", "pedantic", "no_echo"], False),
    "inbox_prefix": "_INBOX",
    "connect_timeout": 2.0,
    "retry_on_failed_connect": False,
    "dont_randomize": False,
    "ignore_discovered_servers": False,
    "dialer": None,
    "allow_reconnect": True,
    "max_reconnect_attempts": None,
    "reconnect_time_wait": 2.0,
    "reconnect_jitter": 0.1,
    "reconnect_jitter_tls": 1.0,
    "reconnect_delay_cb": None,
    "reconnect_to_server_cb": None,
    "reconnect_buffer_size": 8 * MIB,
    "ignore_auth_error_abort": False,
    "ping_interval": 120.0,
    "max_outstanding_pings": 2,
    "pending_size": 2 * MIB,
    "write_timeout": 60.0,
    "request_timeout": 5.0,
    "flush_timeout": 10.0,
    "drain_timeout": 30.0,
    "pending_msgs_limit": 524288,
    "pending_bytes_limit": 64 * MIB,
    "callback_workers": 8,
    "no_callbacks_after_close": False,
    **dict.fromkeys(["user", "password", "token", "user_info_cb", "token_cb"]),
    **dict.fromkeys(["nkeys_seed", "nkeys_seed_str", "user_credentials", "user_credentials_str"]),
    **dict.fromkeys(["user_jwt_cb", "signature_cb", "nkey"]),
    **dict.fromkeys(["tls", "tls_ca", "tls_cert", "tls_key", "tls_key_password", "tls_hostname"]),
    "tls_handshake_first": False,
    "tls_verify": True,
    **dict.fromkeys(["connected_cb", "disconnected_cb", "reconnected_cb", "reconnect_error_cb", "closed_cb"]),
    **dict.fromkeys(["discovered_server_cb", "lame_duck_mode_cb", "error_cb"]),
}
SECRETS = {"password", "token", "nkeys_seed_str", "user_credentials_str", "tls_key_password"}

# Each kind of option: names, values that are taken, values that are not, and what the error says instead.
TEXTS = ["name", "inbox_prefix", "user", "token", "nkeys_seed_str", "user_credentials_str", "tls_key_password"]
TEXTS += ["tls_hostname"]
FLAGS = [name for name, default in DEFAULTS.items() if isinstance(default, bool)]
SECONDS = ["connect_timeout", "ping_interval", "write_timeout", "request_timeout", "flush_timeout", "drain_timeout"]
PAUSES = ["reconnect_time_wait", "reconnect_jitter", "reconnect_jitter_tls"]
CALLS = [name for name in DEFAULTS if name.endswith("_cb")] + ["dialer"]
PATHS = ["nkeys_seed", "tls_ca", "tls_cert", "tls_key"]
PUBLIC_KEY = "UDVEU3DD4KOFECV66VIHWEZOYX4ZKR3WV27L464SIIPOU2IUI3JCYSJF"
NO_NUMBERS = ["1", True, math.nan, math.inf, -math.inf, [1], 1j]
KINDS: dict[str, tuple[list[str], list[Any], list[Any], str]] = {
    "text": (TEXTS, ["x", "a b"], ["", b"x", 5, True, ["x"]], "a str"),
    "public key": (["nkey"], [PUBLIC_KEY], ["", b"x", 5, True], "a str"),
    "password": (["password"], [], [b"x", 5, True], "a str"),
    "flag": (FLAGS, [True, False], [0, 1, "yes", None, "True"], "True or False"),
    "seconds": (SECONDS, [0.001, 1, 1e9], [0, -1, 0.0, None, *NO_NUMBERS], "seconds as a number above 0"),
    "pause": (PAUSES, [0, 0.0, 1, 1e9], [-0.1, None, *NO_NUMBERS], "seconds as a number, 0 or more"),
    "size": (["pending_size"], [1, 10**12], [0, -1, 1.0, None, *NO_NUMBERS], "a number of bytes above 0"),
    "size or 0": (["reconnect_buffer_size"], [0, 1], [-1, 1.5, None, *NO_NUMBERS], "a number of bytes, 0 for none"),
    "count": (
        ["max_outstanding_pings", "callback_workers"],
        [1, 99],
        [0, -1, 1.0, None, *NO_NUMBERS],
        "a whole number above 0",
    ),
    "limit": (
        ["pending_msgs_limit", "pending_bytes_limit"],
        [-1, 1],
        [0, -2, 1.0, None, *NO_NUMBERS],
        "a whole number above 0, or -1",
    ),
    "attempts": (
        ["max_reconnect_attempts"],
        [None, -1, 0, 60],
        [-2, 1.0, *NO_NUMBERS],
        r"a whole number, or None \(or -1\) for ever",
    ),
    "call": (CALLS, [print, threading.Event().set], ["print", 5, True, ["x"]], "a callable"),
    "path": (PATHS, ["x", pathlib.Path("x")], ["", b"x", 5, True], "a path"),
    "paths": (
        ["user_credentials"],
        ["x", pathlib.Path("x"), ("x", "y"), ["x", pathlib.Path("y")]],
        ["", b"x", 5, ("x",), ("x", ""), ("x", "y", "z"), ("x", 5)],
        "a path, or a pair of paths",
    ),
    "tls": (["tls"], [True, False, None, print], ["yes", 1, 0.0, []], "True, False, an ssl.SSLContext or a callable"),
}
NEEDED: dict[str, dict[str, Any]] = {
    "tls_key": {"tls_cert": "x"},
    "tls_key_password": {"tls_cert": "x"},
    "nkey": {"signature_cb": bytes},
    "signature_cb": {"nkey": PUBLIC_KEY},
}
"""What an option cannot do without."""
BAD = [(name, value, takes) for names, _, bad, takes in KINDS.values() for name in names for value in bad]
GOOD = [(name, value) for names, good, _, _ in KINDS.values() for name in names for value in good]


def make(**options: Any) -> Options:
    return make_options(None, options)


# Every option.


def test_the_options_and_their_defaults_are_those_of_the_contract():
    made = {field.name: getattr(make(), field.name) for field in dataclasses.fields(Options)}
    assert made.pop("servers") == (parse_url("nats://127.0.0.1:4222"),)
    assert made == DEFAULTS


def test_every_option_is_of_one_kind():
    names = [name for names, _, _, _ in KINDS.values() for name in names]
    assert sorted(names) == sorted(DEFAULTS)


def test_type_checkers_know_every_option_and_no_other():
    fields = {field.name for field in dataclasses.fields(Options)} - {"servers"}
    assert set(ConnectOptions.__annotations__) == fields
    assert ConnectOptions.__optional_keys__ == fields


def test_type_checkers_are_told_the_types_of_the_fields():
    for field in dataclasses.fields(Options):
        if field.name not in ("servers", "user_credentials"):
            assert ConnectOptions.__annotations__[field.name].__forward_arg__ == field.type, field.name


@pytest.mark.parametrize("name, value, takes", BAD)
def test_a_wrong_value_is_told_by_the_name_of_its_option(name: str, value: Any, takes: str):
    with pytest.raises(ConfigError, match=rf"^{name} takes {takes}") as caught:
        make(**{name: value})
    assert caught.value.option == name


@pytest.mark.parametrize("name", SECONDS + PAUSES)
def test_a_number_that_no_clock_can_count_is_a_wrong_value(name: str):
    with pytest.raises(ConfigError) as caught:
        make(**{name: 10**400})
    assert caught.value.option == name


@pytest.mark.parametrize("name, value", GOOD)
def test_a_good_value_is_taken(name: str, value: Any):
    options = {name: value}
    if name == "user":
        options["password"] = "pw"
    options |= NEEDED.get(name, {})
    if name == "inbox_prefix" and " " in value:
        with pytest.raises(ConfigError, match="inbox_prefix"):
            make(**options)
        return
    made = getattr(make(**options), name)
    assert made == (None if name == "max_reconnect_attempts" and value == -1 else value)


def test_a_tls_context_is_a_value_for_tls():
    context = ssl.create_default_context()
    assert make(tls=context).tls is context


@pytest.mark.parametrize("name", [name for name, default in DEFAULTS.items() if default is None])
def test_what_has_no_default_may_be_none(name: str):
    """So that programs can hand on what they were not given."""
    assert getattr(make(**{name: None}), name) is None


@pytest.mark.parametrize("name", ["connect_timeout", "pending_size", "inbox_prefix", "verbose"])
def test_an_error_does_not_offer_none_where_it_is_not_taken(name: str):
    with pytest.raises(ConfigError) as caught:
        make(**{name: None})
    assert "or None" not in str(caught.value)


@pytest.mark.parametrize("name", ["name", "dialer", "token"])
def test_an_error_offers_none_where_it_is_taken(name: str):
    with pytest.raises(ConfigError, match=" or None, not bytes"):
        make(**{name: b"x"})


def test_for_ever_may_be_said_in_two_ways():
    assert make(max_reconnect_attempts=-1) == make(max_reconnect_attempts=None) == make()


# Unknown options.


@pytest.mark.parametrize(
    "name, hint",
    [
        ("max_reconnect_attempt", "; did you mean 'max_reconnect_attempts'?"),
        ("reconnect_wait", "; did you mean 'reconnect_time_wait'?"),
        ("usr", "; did you mean 'user'?"),
        ("Verbose", "; did you mean 'verbose'?"),
        ("xyzzy", ""),
    ],
)
def test_an_unknown_option_is_told_with_the_nearest_known_one(name: str, hint: str):
    with pytest.raises(ConfigError) as caught:
        make(**{name: 1})
    assert str(caught.value) == f"connect() has no option {name!r}{hint}"
    assert caught.value.option == name


def test_servers_is_no_option_by_that_way():
    with pytest.raises(ConfigError, match="no option 'servers'"):
        make(servers=())


# Contradictions.


@pytest.mark.parametrize(
    "options, option, text",
    [
        ({"user": "joe"}, "user", "without password"),
        ({"password": "pw"}, "password", "without user"),
        ({"user": "joe", "password": "pw", "token": "t"}, "token", "user and token are two ways to authenticate"),
        ({"token": "t", "token_cb": str}, "token_cb", "token and token_cb are two ways"),
        ({"user_info_cb": tuple, "token_cb": str}, "token_cb", "user_info_cb and token_cb are two ways"),
        ({"nkeys_seed": "x", "nkeys_seed_str": "x"}, "nkeys_seed_str", "two ways"),
        ({"user_credentials": "x", "user_credentials_str": "x"}, "user_credentials_str", "two ways"),
        ({"user_jwt_cb": str, "signature_cb": bytes, "nkey": "x"}, "nkey", "two ways"),
        ({"user": "joe", "password": "pw", "user_credentials": "x"}, "user_credentials", "two ways"),
    ],
)
def test_two_ways_to_authenticate_contradict_each_other(options: dict[str, Any], option: str, text: str):
    with pytest.raises(ConfigError, match=text) as caught:
        make(**options)
    assert caught.value.option == option


@pytest.mark.parametrize("name", ["tls_ca", "tls_cert", "tls_key", "tls_hostname"])
def test_no_tls_contradicts_the_details_of_tls(name: str):
    with pytest.raises(ConfigError):
        make(tls=False, **{name: "x"})


def test_an_empty_password_is_a_password():
    assert make(user="joe", password="").password == ""


@pytest.mark.parametrize("prefix", ["a b", "a.*", ">", "a..b", "a.", "\r\n"])
def test_an_inbox_prefix_is_a_subject_without_wildcards(prefix: str):
    with pytest.raises(ConfigError, match=r"^inbox_prefix") as caught:
        make(inbox_prefix=prefix)
    assert caught.value.option == "inbox_prefix"


@pytest.mark.parametrize(
    "options, option",
    [
        ({"tls_key": "x"}, "tls_key"),
        ({"tls_key_password": "x"}, "tls_key_password"),
        ({"tls": print, "tls_ca": "x"}, "tls_ca"),
        ({"tls": print, "tls_cert": "x"}, "tls_cert"),
        ({"tls": print, "tls_verify": False}, "tls_verify"),
        ({"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, "tls"),
        ({"tls": False, "tls_verify": False}, "tls"),
        ({"tls": False, "tls_handshake_first": True}, "tls"),
        ({"nkey": "x"}, "nkey"),
        ({"signature_cb": bytes}, "signature_cb"),
        ({"token": "x", "signature_cb": bytes}, "signature_cb"),
    ],
)
def test_what_needs_or_contradicts_another_option_is_told(options: dict[str, Any], option: str):
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert caught.value.option == option


def test_no_tls_contradicts_a_url_that_asks_for_it():
    with pytest.raises(ConfigError) as caught:
        make_options("nats://a,tls://b", {"tls": False})
    assert caught.value.option == "tls"


@pytest.mark.parametrize(
    "options",
    [
        {"tls": True},
        {"tls": ssl.create_default_context()},
        {"tls": ssl.create_default_context},
        {"tls_ca": "x"},
        {"tls_cert": "x"},
        {"tls_hostname": "x"},
        {"tls_handshake_first": True},
        {"tls_verify": False},
    ],
)
def test_any_option_of_tls_asks_for_it(options: dict[str, Any]):
    assert make(**options).wants_tls


def test_any_url_asks_for_tls_on_behalf_of_all():
    assert make_options("a,tls://b", {}).wants_tls
    assert not make_options("a,b", {}).wants_tls
    assert not make(tls=False).wants_tls


# Servers.


def test_servers_are_read():
    made = make_options("joe:pw@a:1,b:2", {})
    assert made.servers == (ServerUrl("nats", "a", 1, "joe", "pw"), parse_url("b:2"))


def test_a_bad_url_is_told_by_the_name_of_its_option():
    with pytest.raises(ConfigError) as caught:
        make_options(["a", "http://b"], {})
    assert caught.value.option == "servers"


# Secrets.


def test_options_show_no_secret():
    made = make_options("joe:s3cr3t@a,s3cr3t@b", {"user": "jane", "password": "s3cr3t"})
    assert "s3cr3t" not in repr(made) + str(made)
    assert "jane" in repr(made)
    assert "nats://a:4222" in repr(made)
    assert "s3cr3t" not in repr(make(token="s3cr3t"))


def test_every_secret_is_kept_from_being_shown():
    assert {field.name for field in dataclasses.fields(Options) if not field.repr} == SECRETS


@pytest.mark.parametrize("name", [*sorted(SECRETS), "nkeys_seed", "user_credentials", "name"])
@pytest.mark.parametrize("value", [b"s3cr3t", ["s3cr3t"], {"s3cr3t": 1}])
def test_an_error_quotes_no_value(name: str, value: Any):
    with pytest.raises(ConfigError) as caught:
        make(**{name: value})
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_an_error_quotes_not_even_a_number_for_a_secret(name: str):
    """A PIN, given without quotes."""
    with pytest.raises(ConfigError) as caught:
        make(**{name: 4711})
    assert "4711" not in str(caught.value)


def test_an_error_quotes_a_number_that_is_no_secret():
    with pytest.raises(ConfigError, match="not -5"):
        make(connect_timeout=-5)


# A value.


def test_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().verbose = True  # type: ignore[misc]


def test_making_options_starts_no_thread():
    before = threading.enumerate()
    make_options("a,b", {"name": "x"})
    assert threading.enumerate() == before


def test_an_error_survives_a_pickle_with_the_name_of_its_option():
    with pytest.raises(ConfigError) as caught:
        make(connect_timeout=0)
    assert pickle.loads(pickle.dumps(caught.value)).option == "connect_timeout"
