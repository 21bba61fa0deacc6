"""Which of several servers' failures is raised."""

from __future__ import annotations

import itertools

import pytest

from natsync.errors import (
    AuthExpiredError,
    AuthorizationError,
    ConfigError,
    MaxConnectionsError,
    NatsConnectionError,
    NatsError,
    NatsTimeoutError,
    NoServersError,
    ProtocolError,
    TLSError,
)
from natsync.policy.verdict import most_telling

# The most telling first.
ORDER: list[NatsError] = [
    ConfigError("a callback's fault"),
    AuthorizationError("Authorization Violation"),
    TLSError("certificate verify failed"),
    ProtocolError("no NATS"),
    MaxConnectionsError("maximum connections exceeded"),
    NatsTimeoutError("silence"),
    NoServersError("refused"),
]


@pytest.mark.parametrize("better, worse", list(itertools.combinations(ORDER, 2)))
def test_the_more_telling_one_is_raised_wherever_it_stands(better: NatsError, worse: NatsError):
    for failures in ({"a": better, "b": worse}, {"b": worse, "a": better}):
        assert most_telling(failures) is better
        assert better.errors == failures


def test_of_equals_the_first_is_raised():
    first, second = AuthExpiredError("expired"), AuthorizationError("no")
    assert most_telling({"a": NoServersError("refused"), "b": first, "c": second}) is first


def test_a_single_failure_is_raised_as_it_is():
    for error in ORDER:
        assert most_telling({"a": error}) is error
        assert error.errors == {"a": error}


def test_several_servers_that_cannot_be_reached_are_all_named():
    first, second = NoServersError("a refused"), NoServersError("b is unknown")
    error = most_telling({"a": first, "b": second})
    assert isinstance(error, NoServersError)
    assert str(error) == "none of 2 servers could be reached: a refused; b is unknown"
    assert error.__cause__ is first
    assert error.errors == {"a": first, "b": second}
    assert not first.errors


def test_what_has_no_rank_is_raised_when_there_is_nothing_else():
    first, second = NatsConnectionError("lost while it was restored"), NatsConnectionError("too")
    assert most_telling({"a": first, "b": second}) is first
    timeout = NatsTimeoutError("silence")
    assert most_telling({"a": first, "b": timeout}) is timeout


def test_the_failures_are_copied():
    failures: dict[str, NatsError] = {"a": NatsTimeoutError("late")}
    error = most_telling(failures)
    failures.clear()
    assert list(error.errors) == ["a"]
