from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsync.errors import (
    AuthExpiredError,
    AuthorizationError,
    AuthRevokedError,
    MaxConnectionsError,
    MaxSubscriptionsError,
    NatsError,
    PermissionsError,
    ServerError,
    StaleConnectionError,
)
from natsync.protocol.server_errors import Reaction, parse_error, reaction

SERVER = "nats://127.0.0.1:4222"


@pytest.mark.parametrize(
    "text, kind, expected",
    [
        ("Stale Connection", StaleConnectionError, Reaction.RECONNECT),
        ("maximum connections exceeded", MaxConnectionsError, Reaction.RECONNECT),
        ("maximum account active connections exceeded", MaxConnectionsError, Reaction.RECONNECT),
        ("Permissions Violation", PermissionsError, Reaction.STAY),
        ('Permissions Violation for Publish to "foo"', PermissionsError, Reaction.STAY),
        ("maximum subscriptions exceeded", MaxSubscriptionsError, Reaction.STAY),
        ("Authorization Violation", AuthorizationError, Reaction.AUTH),
        ("Authentication Timeout", AuthorizationError, Reaction.AUTH),
        ("User Authentication Expired", AuthExpiredError, Reaction.AUTH),
        ("Account Authentication Expired", AuthExpiredError, Reaction.AUTH),
        ("User Authentication Revoked", AuthRevokedError, Reaction.AUTH),
        ("Unknown Protocol Operation", ServerError, Reaction.CLOSE),
        ("Maximum Payload Violation", ServerError, Reaction.CLOSE),
        ("Invalid Subject", ServerError, Reaction.CLOSE),
        ("", ServerError, Reaction.CLOSE),
    ],
)
@pytest.mark.parametrize("change", [str, str.upper, str.lower])
@pytest.mark.parametrize("form", ["'{}'", "{}", " \t'{}' ", "' {} '"])
def test_kinds(text: str, kind: type[NatsError], expected: Reaction, change, form: str):
    error = parse_error(form.format(change(text)), server=SERVER)
    assert type(error) is kind
    assert reaction(error) is expected
    assert change(text) in str(error)
    assert isinstance(error, (ServerError, StaleConnectionError))
    assert error.server == SERVER
    if isinstance(error, ServerError):
        assert error.text == change(text)


@pytest.mark.parametrize(
    "text, operation, subject, queue",
    [
        ('Permissions Violation for Publish to "foo.bar"', "publish", "foo.bar", None),
        ('Permissions Violation for Publish with Reply of "r"', "publish", "r", None),
        ('Permissions Violation for Subscription to "foo"', "subscription", "foo", None),
        ('permissions violation for subscription to "Foo" using queue "Q"', "subscription", "Foo", "Q"),
        ('Permissions Violation for Subscription to "foo" using queue "q" (sid "1")', "subscription", "foo", "q"),
        ('Permissions Violation for Subscription to "foo", too many tokens', "subscription", "foo", None),
        (r'Permissions Violation for Publish to "a\"b\\c"', "publish", 'a"b\\c', None),
        (
            r'Permissions Violation for Publish to "a\xff\x01\u00a0\U0001f389"',
            "publish",
            "a\udcff\x01\u00a0\U0001f389",
            None,
        ),
        (r'Permissions Violation for Publish to "\UFFFFFFFF\Uffffffff"', "publish", "UFFFFFFFF\ufffd", None),
        ('Permissions Violation for Publish to "it\'s"', "publish", "it's", None),
        ('Permissions Violation for Publish to "open', None, None, None),
        ('Permissions Violation using queue "q"', None, None, None),
        ("Permissions Violation", None, None, None),
    ],
)
def test_permissions(text: str, operation: str | None, subject: str | None, queue: str | None):
    error = parse_error(f"'{text}'", server=SERVER)
    assert isinstance(error, PermissionsError)
    assert (error.operation, error.subject, error.queue) == (operation, subject, queue)
    assert error.text == text


def test_long_texts_are_shortened_but_a_long_subject_is_kept():
    subject = "s" * 4000
    error = parse_error(f"'Permissions Violation for Publish to \"{subject}\"'", server=None)
    assert isinstance(error, PermissionsError)
    assert error.subject == subject
    assert len(error.text) == 1024
    assert len(str(error)) < 1200
    assert len(str(parse_error("x" * 60_000, server=None))) < 1100


@pytest.mark.parametrize(
    "text", ["Stale Connection", "Authorization Violation", 'Permissions Violation for Publish to "x"']
)
def test_errors_survive_pickle(text: str):
    error = parse_error(text, server=SERVER)
    clone = pickle.loads(pickle.dumps(error))
    assert type(clone) is type(error)
    assert (str(clone), clone.__dict__) == (str(error), error.__dict__)


@given(st.text(max_size=60) | st.text(max_size=60).map(lambda tail: 'Permissions Violation for Publish to "' + tail))
def test_any_text_is_some_error(text: str):
    error = parse_error(text, server=None)
    assert isinstance(error, (ServerError, StaleConnectionError))
    assert reaction(error) in Reaction
