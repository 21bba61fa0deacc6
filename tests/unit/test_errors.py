"""The tree of errors, what they carry, and that all of it survives a pickle."""

from __future__ import annotations

import copy
import pickle
import socket
import ssl
import textwrap
from typing import Any

import pytest

import natsync
from natsync import errors
from natsync.errors import (
    AuthorizationError,
    BadSubjectError,
    ConfigError,
    ConnectionClosedError,
    MaxMessagesError,
    MaxPayloadError,
    NatsConnectionError,
    NatsError,
    NatsTimeoutError,
    NoRespondersError,
    NoServersError,
    OutboundBufferLimitError,
    PermissionsError,
    ProtocolError,
    ServerError,
    SlowConsumerError,
)

# As users are promised it: a child stands under its parent, a builtin in brackets is a second base.
TREE = """
NatsError
    ConfigError (ValueError)
        BadSubjectError   BadQueueError   BadHeaderError
    NatsTimeoutError (TimeoutError)
    NatsConnectionError (ConnectionError)
        NoServersError   ConnectionClosedError   ConnectionDrainingError   ConnectionReconnectingError
        StaleConnectionError   ForkedConnectionError   TLSError
    ProtocolError
    ServerError
        AuthorizationError
            AuthExpiredError   AuthRevokedError
        PermissionsError   MaxConnectionsError   MaxSubscriptionsError
    OutboundBufferLimitError   MaxPayloadError   NoRespondersError
    SlowConsumerError   BadSubscriptionError   MaxMessagesError
"""

FACTS: dict[str, dict[str, Any]] = {
    "ConfigError": {"option": "name"},
    "BadSubjectError": {"option": "subject"},
    "BadQueueError": {"option": "queue"},
    "BadHeaderError": {"option": "headers"},
    "NatsTimeoutError": {"timeout": 2.5},
    **{
        name: {"server": "nats://a:4222"}
        for name in (
            "NatsConnectionError",
            "NoServersError",
            "ConnectionClosedError",
            "ConnectionDrainingError",
            "ConnectionReconnectingError",
            "StaleConnectionError",
            "ForkedConnectionError",
            "TLSError",
        )
    },
    **{
        name: {"text": "Some Words", "server": "nats://a:4222"}
        for name in (
            "ServerError",
            "AuthorizationError",
            "AuthExpiredError",
            "AuthRevokedError",
            "MaxConnectionsError",
            "MaxSubscriptionsError",
        )
    },
    "PermissionsError": {
        "text": "Permissions Violation",
        "server": "nats://a:4222",
        "operation": "publish",
        "subject": "foo",
        "queue": "q",
    },
    "OutboundBufferLimitError": {"size": 10, "limit": 5},
    "MaxPayloadError": {"size": 10, "max_payload": 5},
    "NoRespondersError": {"subject": "foo"},
    "SlowConsumerError": {"subject": "foo", "sid": 7, "dropped": 3},
    "MaxMessagesError": {"max_msgs": 5},
}
DEFAULTS: dict[type[NatsError], dict[str, Any]] = {
    ConfigError: {"option": None},
    NatsTimeoutError: {"timeout": None},
    NatsConnectionError: {"server": None},
    ServerError: {"text": "words", "server": None},
    PermissionsError: {"operation": None, "subject": None, "queue": None, "text": "words"},
    OutboundBufferLimitError: {"size": 0, "limit": 0},
    NoRespondersError: {"subject": None},
    SlowConsumerError: {"subject": None, "sid": None, "dropped": 0},
    MaxMessagesError: {"max_msgs": None},
}


def read_tree() -> dict[str, tuple[str, ...]]:
    """Return every class's bases by name."""
    bases: dict[str, tuple[str, ...]] = {}
    parents: list[str] = ["Exception"]
    for line in textwrap.dedent(TREE).strip().splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        for word in line.split():
            if word.startswith("("):
                bases[parents[-1]] += (word.strip("()"),)
            else:
                bases[word] = (parents[depth],)
                del parents[depth + 1 :]
                parents.append(word)
    return bases


BASES = read_tree()


def make(name: str) -> NatsError:
    """Make an error with all its facts."""
    kind = getattr(errors, name)
    facts = FACTS.get(name, {})
    error: NatsError = kind(**facts) if kind is MaxPayloadError else kind("words", **facts)
    return error


def facts_of(error: BaseException) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if not name.startswith("__")}


def test_the_tree_is_complete():
    assert sorted(errors.__all__) == sorted(BASES)
    classes = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    defined = {name for name, value in classes.items() if value.__module__ == errors.__name__}
    assert defined == set(BASES)


@pytest.mark.parametrize("name", BASES)
def test_each_error_has_its_bases(name: str):
    assert tuple(base.__name__ for base in getattr(errors, name).__bases__) == BASES[name]


@pytest.mark.parametrize("name", BASES)
def test_each_error_can_be_had_from_natsync(name: str):
    assert getattr(natsync, name) is getattr(errors, name)
    assert name in natsync.__all__
    assert getattr(errors, name).__doc__


@pytest.mark.parametrize("name", BASES)
def test_each_error_carries_its_facts(name: str):
    error = make(name)
    assert facts_of(error) == {**FACTS.get(name, {}), "errors": {}}
    assert str(error) == "words" or isinstance(error, MaxPayloadError)


@pytest.mark.parametrize("kind, facts", DEFAULTS.items())
def test_facts_that_are_not_known_have_defaults(kind: type[NatsError], facts: dict[str, Any]):
    error = kind("words")
    assert {name: getattr(error, name) for name in facts} == facts
    kind()


def test_the_payload_error_says_what_to_do():
    assert str(MaxPayloadError(10, 5)) == (
        "headers and data are 10 bytes, the server takes 5: send less, or raise max_payload in its configuration"
    )


@pytest.mark.parametrize(
    "name, builtin",
    [
        ("ConfigError", ValueError),
        ("BadSubjectError", ValueError),
        ("NatsTimeoutError", TimeoutError),
        ("NoServersError", ConnectionError),
        ("ConnectionClosedError", OSError),
    ],
)
def test_whoever_catches_builtins_catches_ours(name: str, builtin: type[Exception]):
    with pytest.raises(builtin):
        raise make(name)


# Surviving a pickle, as in a task queue or a process pool.


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", BASES)
def test_an_error_survives_a_pickle_with_its_facts(name: str, protocol: int):
    error = make(name)
    error.errors = {"nats://a:4222": NoServersError("refused")}
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    assert facts_of(back).keys() == facts_of(error).keys()
    assert {**facts_of(back), "errors": {}} == {**facts_of(error), "errors": {}}
    assert [(url, type(each), str(each)) for url, each in back.errors.items()] == [
        ("nats://a:4222", NoServersError, "refused")
    ]
    assert back.__cause__ is None


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_an_error_can_be_copied(copied: Any):
    error = make("PermissionsError")
    assert facts_of(copied(error)) == facts_of(error)


@pytest.mark.parametrize(
    "cause",
    [
        NatsTimeoutError("late", timeout=1.0),
        ConnectionRefusedError(111, "Connection refused"),
        socket.gaierror(-2, "Name or service not known"),
        ssl.SSLError(1, "wrong version number"),
        ValueError("bad"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_the_cause_survives_a_pickle(cause: Exception):
    error = ConnectionClosedError("closed")
    error.__cause__ = cause
    back = pickle.loads(pickle.dumps(error))
    assert type(back.__cause__) is type(cause)
    assert back.__cause__.args == cause.args
    assert back.__suppress_context__


def test_a_chain_of_causes_survives_a_pickle():
    try:
        try:
            raise ConnectionResetError("reset")
        except OSError as exc:
            raise NatsConnectionError("broke", server="nats://a:1") from exc
    except NatsConnectionError as exc:
        error = ConnectionClosedError("closed")
        error.__cause__ = exc
    back = pickle.loads(pickle.dumps(error))
    assert str(back.__cause__) == "broke"
    assert str(back.__cause__.__cause__) == "reset"


def test_an_error_that_is_among_its_own_errors_survives_a_pickle():
    """What connect() raises is the most telling of `errors`, and one of them."""
    error = AuthorizationError("no", server="nats://a:1")
    error.errors = {"nats://a:1": error, "nats://b:1": NoServersError("refused")}
    back = pickle.loads(pickle.dumps(error))
    assert back.errors["nats://a:1"] is back
    assert str(back.errors["nats://b:1"]) == "refused"
    assert copy.deepcopy(error).errors.keys() == error.errors.keys()


class Unpicklable(ValueError):
    """As users write them: what its constructor takes is not what it hands on."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")


def test_a_cause_that_cannot_be_pickled_does_not_cost_the_error():
    """A user's credential or dialer callback may raise anything."""

    class Local(OSError):
        pass

    for cause in (Unpicklable(7, "why"), Local("why"), RuntimeError("why")):
        error = ConfigError("a callback raised", option="token_cb")
        error.__cause__ = cause
        back = pickle.loads(pickle.dumps(error))
        assert (str(back), back.option) == ("a callback raised", "token_cb")


@pytest.mark.parametrize(
    "error, text",
    [
        (BadSubjectError("subject is empty", option="subject"), "BadSubjectError('subject is empty')"),
        (ProtocolError("what?"), "ProtocolError('what?')"),
        (MaxPayloadError(10, 5), "MaxPayloadError(10, 5)"),
    ],
)
def test_an_error_shows_what_it_is(error: NatsError, text: str):
    assert repr(error) == text
