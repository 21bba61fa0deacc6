"""The names, signatures, defaults and documents that users rely on: the public contract as tables."""

from __future__ import annotations

import collections.abc
import concurrent.futures
import dataclasses
import enum
import inspect
import pickle
import typing
from typing import Any

import pytest

import natsync
from natsync import Client, Headers, Msg, ServerInfo, Stats, Status, Subscription, errors, events
from natsync.policy.connect_options import ConnectOptions
from natsync.policy.options import Options
from natsync.testing import NatsCluster, NatsServer

MIB = 1024 * 1024

OPTIONS: dict[str, Any] = {
    "name": None,
    "verbose": False,
    "pedantic": False,
    "no_echo": False,
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
    "user": None,
    "password": None,
    "token": None,
    "user_info_cb": None,
    "token_cb": None,
    "nkeys_seed": None,
    "nkeys_seed_str": None,
    "user_credentials": None,
    "user_credentials_str": None,
    "user_jwt_cb": None,
    "signature_cb": None,
    "nkey": None,
    "tls": None,
    "tls_ca": None,
    "tls_cert": None,
    "tls_key": None,
    "tls_key_password": None,
    "tls_hostname": None,
    "tls_handshake_first": False,
    "tls_verify": True,
    "connected_cb": None,
    "disconnected_cb": None,
    "reconnected_cb": None,
    "reconnect_error_cb": None,
    "closed_cb": None,
    "discovered_server_cb": None,
    "lame_duck_mode_cb": None,
    "error_cb": None,
}

METHODS: dict[type, dict[str, str]] = {
    Client: {
        "publish": "(self, subject, data=b'', *, reply=None, headers=None)",
        "publish_msg": "(self, msg)",
        "subscribe": (
            "(self, subject, *, queue=None, cb=None, max_msgs=None, pending_msgs_limit=None, "
            "pending_bytes_limit=None, workers=1)"
        ),
        "request": "(self, subject, data=b'', *, timeout=None, headers=None)",
        "request_future": "(self, subject, data=b'', *, timeout=None, headers=None)",
        "request_many": (
            "(self, subject, data=b'', *, timeout=None, max_msgs=None, stall=None, sentinel=None, headers=None)"
        ),
        "flush": "(self, timeout=None)",
        "rtt": "(self, timeout=None)",
        "drain": "(self, timeout=None)",
        "close": "(self)",
        "wait_closed": "(self, timeout=None)",
        "force_reconnect": "(self)",
        "new_inbox": "(self)",
    },
    Subscription: {
        "next_msg": "(self, timeout=None)",
        "unsubscribe": "(self)",
        "auto_unsubscribe": "(self, max_msgs)",
        "drain": "(self, timeout=None)",
        "set_pending_limits": "(self, msgs, bytes)",
    },
    Msg: {
        "__init__": "(self, subject, data=b'', *, reply=None, headers=None)",
        "respond": "(self, data=b'', *, headers=None)",
    },
    Headers: {
        "get": "(self, name, default=None)",
        "get_all": "(self, name)",
        "add": "(self, name, value)",
        "items": "(self)",
        "__getitem__": "(self, name)",
    },
    NatsServer: {
        "__init__": "(self, config=None, *, port=None, jetstream=False, args=())",
        "start": "(self)",
        "stop": "(self)",
        "kill": "(self)",
        "restart": "(self)",
        "pause": "(self)",
        "resume": "(self)",
        "reload": "(self, config=None)",
        "lame_duck": "(self)",
    },
}

PROPERTIES: dict[type, tuple[str, ...]] = {
    Client: (
        *("status", "is_connected", "is_reconnecting", "is_draining", "is_closed", "connected_url", "server_info"),
        *("client_id", "max_payload", "servers", "discovered_servers", "last_error", "buffered", "stats"),
    ),
    Subscription: ("sid", "subject", "queue", "is_valid", "pending_msgs", "pending_bytes", "delivered", "dropped"),
    Headers: ("status", "description"),
    NatsServer: ("url", "port"),
}

FIELDS: dict[type, tuple[str, ...]] = {
    Stats: ("in_msgs", "out_msgs", "in_bytes", "out_bytes", "reconnects", "errors", "dropped"),
    ServerInfo: (
        *("server_id", "server_name", "version", "host", "port", "max_payload", "client_id", "client_ip", "headers"),
        "jetstream",
    ),
    **{
        getattr(events, name): ("client", "error", "server", "subscription")
        for name in (
            *("Connected", "Disconnected", "Reconnected", "ReconnectFailed", "Closed", "DiscoveredServers", "LameDuck"),
            "AsyncError",
        )
    },
}

# Each error: the one it stands under, and the builtin that is its second base.
ERRORS: dict[str, tuple[str | None, type[Exception] | None]] = {
    "NatsError": (None, None),
    "ConfigError": ("NatsError", ValueError),
    "BadSubjectError": ("ConfigError", None),
    "BadQueueError": ("ConfigError", None),
    "BadHeaderError": ("ConfigError", None),
    "NatsTimeoutError": ("NatsError", TimeoutError),
    "NatsConnectionError": ("NatsError", ConnectionError),
    "NoServersError": ("NatsConnectionError", None),
    "ConnectionClosedError": ("NatsConnectionError", None),
    "ConnectionDrainingError": ("NatsConnectionError", None),
    "ConnectionReconnectingError": ("NatsConnectionError", None),
    "StaleConnectionError": ("NatsConnectionError", None),
    "ForkedConnectionError": ("NatsConnectionError", None),
    "TLSError": ("NatsConnectionError", None),
    "ProtocolError": ("NatsError", None),
    "ServerError": ("NatsError", None),
    "AuthorizationError": ("ServerError", None),
    "AuthExpiredError": ("AuthorizationError", None),
    "AuthRevokedError": ("AuthorizationError", None),
    "PermissionsError": ("ServerError", None),
    "MaxConnectionsError": ("ServerError", None),
    "MaxSubscriptionsError": ("ServerError", None),
    "OutboundBufferLimitError": ("NatsError", None),
    "MaxPayloadError": ("NatsError", None),
    "NoRespondersError": ("NatsError", None),
    "SlowConsumerError": ("NatsError", None),
    "BadSubscriptionError": ("NatsError", None),
    "MaxMessagesError": ("NatsError", None),
}

NEVER_RAISE = ("wait_closed", "new_inbox", "get", "get_all", "items")


def signature(method: Any) -> str:
    """Return a signature without its annotations."""
    plain = inspect.signature(method)
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in plain.parameters.values()]
    return str(plain.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def all_of(table: dict[type, Any]) -> list[Any]:
    return [pytest.param(owner, name, id=f"{owner.__name__}.{name}") for owner in table for name in table[owner]]


# Options


def test_connect_takes_servers_and_options() -> None:
    assert signature(natsync.connect) == "(servers=None, **options)"


def test_the_options_are_those_of_the_table() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Options) if field.name != "servers"}
    assert defaults == OPTIONS
    assert {name: type(value) for name, value in defaults.items()} == {
        name: type(value) for name, value in OPTIONS.items()
    }


def test_type_checkers_know_the_options() -> None:
    assert set(ConnectOptions.__annotations__) == set(OPTIONS)
    assert ConnectOptions.__required_keys__ == frozenset()


@pytest.mark.parametrize("name", OPTIONS)
def test_every_default_may_be_given(name: str) -> None:
    assert getattr(Options(**{name: OPTIONS[name]}), name) == OPTIONS[name]


def test_minus_one_reconnects_for_ever() -> None:
    assert Options(max_reconnect_attempts=-1).max_reconnect_attempts is None
    assert Options(pending_msgs_limit=-1, pending_bytes_limit=-1).pending_msgs_limit == -1


# Methods, properties, fields


@pytest.mark.parametrize("owner, name", all_of(METHODS))
def test_signatures(owner: type, name: str) -> None:
    assert signature(getattr(owner, name)) == METHODS[owner][name]


@pytest.mark.parametrize("owner, name", all_of(PROPERTIES))
def test_properties_are_documented_and_read_only(owner: type, name: str) -> None:
    found = inspect.getattr_static(owner, name)
    assert isinstance(found, property)
    assert found.fset is None
    assert found.__doc__


@pytest.mark.parametrize("owner, name", all_of(FIELDS))
def test_fields_of_frozen_objects(owner: Any, name: str) -> None:
    assert name in {field.name for field in dataclasses.fields(owner)}
    assert owner.__dataclass_params__.frozen


@pytest.mark.parametrize("name", ["subject", "data", "reply", "headers", "subscription"])
def test_a_message_has_its_attributes(name: str) -> None:
    assert hasattr(Msg("subject"), name)


def test_context_managers_and_iterators() -> None:
    for owner in (Client, Subscription, NatsServer, NatsCluster):
        assert callable(owner.__enter__)
        assert callable(owner.__exit__)
    assert issubclass(Subscription, collections.abc.Iterable)
    hints = typing.get_type_hints(natsync.Client.request_future, vars(inspect.getmodule(Client.request_future)))
    assert hints["return"] == concurrent.futures.Future[Msg]


TAKE_DATA = [
    pytest.param(getattr(owner, name), id=f"{owner.__name__}.{name}")
    for owner, methods in METHODS.items()
    for name, shape in methods.items()
    if "data=b''" in shape
]


@pytest.mark.parametrize("method", TAKE_DATA)
def test_type_checkers_know_that_data_is_bytes_like(method: Any) -> None:
    hint = typing.get_type_hints(method, vars(inspect.getmodule(method)))["data"]
    assert {bytes, bytearray, memoryview} <= set(typing.get_args(hint)) or "Buffer" in str(hint), hint


def test_the_cluster_has_servers_and_urls() -> None:
    assert signature(NatsCluster.__init__).startswith("(self, size=3")
    for name in ("servers", "urls"):
        assert hasattr(NatsCluster, name) or name in vars(NatsCluster())


def test_status_has_the_names_of_the_contract() -> None:
    assert issubclass(Status, enum.Enum)
    assert set(Status.__members__) == {
        *("DISCONNECTED", "CONNECTING", "CONNECTED", "RECONNECTING", "DRAINING_SUBS", "DRAINING_PUBS", "CLOSED"),
    }


# Documents


PUBLIC_METHODS = [
    pytest.param(owner, name, id=f"{owner.__name__}.{name}")
    for owner in (Client, Subscription, Msg, Headers)
    for name in METHODS[owner]
    if not name.startswith("_")
]


@pytest.mark.parametrize("owner, name", PUBLIC_METHODS)
def test_every_method_says_what_it_raises(owner: type, name: str) -> None:
    text = inspect.getdoc(getattr(owner, name)) or ""
    assert text
    assert name in NEVER_RAISE or "raises" in text.lower(), text


@pytest.mark.parametrize("owner", [*METHODS, *FIELDS, Status, natsync.connect, natsync], ids=lambda each: each.__name__)
def test_everything_public_is_documented(owner: Any) -> None:
    assert inspect.getdoc(owner)
    if inspect.isclass(owner):
        for name, member in vars(owner).items():
            if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{owner.__name__}.{name}"


def test_every_blocking_call_says_what_its_timeout_is() -> None:
    for owner in (Client, Subscription):
        for name, shape in METHODS[owner].items():
            if "timeout" in shape:
                assert "timeout:" in (inspect.getdoc(getattr(owner, name)) or ""), f"{owner.__name__}.{name}"


# Errors


def test_there_are_no_other_errors() -> None:
    assert set(errors.__all__) == set(ERRORS)


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_stands_under_its_parent(name: str) -> None:
    kind, (parent, builtin) = getattr(errors, name), ERRORS[name]
    assert kind.__bases__[0] is (getattr(errors, parent) if parent else Exception)
    assert builtin is None or issubclass(kind, builtin)
    assert getattr(natsync, name) is kind
    assert inspect.getdoc(kind)


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_survives_pickle_with_its_facts_and_cause(name: str) -> None:
    kind = getattr(errors, name)
    error = kind(101, 100) if name == "MaxPayloadError" else kind("what happened")
    error.__cause__ = ConnectionResetError("why")
    error.errors = {"nats://127.0.0.1:4222": errors.NatsTimeoutError("slow", timeout=1.5)}
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert type(again.__cause__) is ConnectionResetError
    assert again.errors["nats://127.0.0.1:4222"].timeout == 1.5
    facts = {key: value for key, value in vars(error).items() if key != "errors"}
    assert {key: vars(again)[key] for key in facts} == facts


def test_errors_carry_their_facts() -> None:
    too_large = errors.MaxPayloadError(101, 100)
    assert (too_large.size, too_large.max_payload) == (101, 100)
    assert "101" in str(too_large)
    assert "100" in str(too_large)
    assert errors.ConfigError("text", option="name").option == "name"
    assert errors.NatsTimeoutError("text", timeout=1.0).timeout == 1.0
    assert errors.NoServersError().errors == {}
