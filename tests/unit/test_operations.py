from __future__ import annotations

import pickle

import pytest

from natsync.protocol.operations import OK, PING, PONG, ErrOp, InfoOp, OkOp, PingOp, PongOp


def test_only_messages_are_tuples():
    assert not any(isinstance(operation, tuple) for operation in (PING, PONG, OK, ErrOp(""), InfoOp(b"")))


@pytest.mark.parametrize("first, second", [(PING, PONG), (PONG, OK), (OK, PING), (ErrOp("a"), ErrOp("b"))])
def test_different_operations_differ(first: object, second: object):
    assert first != second


@pytest.mark.parametrize("one, kind", [(PING, PingOp), (PONG, PongOp), (OK, OkOp)])
def test_singletons_are_equal_to_their_like(one: object, kind: type):
    assert one == kind() == pickle.loads(pickle.dumps(one))


def test_info_is_not_shown():
    assert "secret" not in repr(InfoOp(b'{"nonce":"secret"}'))
