"""One timeout over several steps."""

from __future__ import annotations

import math
import time

import pytest

from natsync.deadline import Deadline
from tests.support.waiting import eventually


def test_without_a_limit_it_never_expires():
    deadline = Deadline(None)
    assert deadline.timeout is None
    assert deadline.at == deadline.remaining() == math.inf
    assert not deadline.expired


@pytest.mark.parametrize("timeout", [0.5, 5, 1e9])
def test_the_rest_is_measured_from_the_start(timeout: float):
    before = time.monotonic()
    deadline = Deadline(timeout)
    assert deadline.timeout == timeout
    assert before + timeout <= deadline.at <= time.monotonic() + timeout
    assert 0 < deadline.remaining() <= timeout
    assert not deadline.expired


def test_it_is_spent_once_and_never_negative():
    deadline = Deadline(0.02)
    eventually(lambda: deadline.expired)
    assert deadline.remaining() == 0.0
    assert time.monotonic() >= deadline.at
    assert deadline.timeout == 0.02


@pytest.mark.parametrize("timeout", [0, -1, -math.inf])
def test_no_time_at_all_is_expired_at_once(timeout: float):
    deadline = Deadline(timeout)
    assert deadline.expired
    assert deadline.remaining() == 0.0


def test_infinity_is_no_limit():
    assert Deadline(math.inf).remaining() == math.inf
