"""When to pause between attempts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsync.policy.backoff import Backoff


def pauses(servers: int, attempts: int) -> list[bool]:
    backoff = Backoff(2.0, 0.0)
    return [backoff.pause_due(servers) for _ in range(attempts)]


def test_three_servers_pause_only_before_the_one_just_lost():
    assert pauses(3, 9) == [False, False, True] * 3


def test_a_single_server_is_paused_for_before_every_attempt():
    assert pauses(1, 4) == [True] * 4


def test_a_pool_that_is_empty_by_now_is_no_trouble():
    assert pauses(0, 2) == [True, True]


@given(st.integers(1, 20), st.integers(0, 200))
def test_between_two_attempts_on_the_same_server_there_is_one_pause(servers: int, attempts: int):
    due = pauses(servers, attempts)
    for attempt in range(attempts - servers):
        assert sum(due[attempt + 1 : attempt + servers + 1]) == 1
    assert sum(due) == attempts // servers


@given(st.lists(st.integers(0, 8), max_size=60))
def test_a_pool_that_changes_is_never_walked_twice_without_a_pause(sizes: list[int]):
    """The cluster may grow and shrink during an outage."""
    backoff = Backoff(2.0, 0.0)
    without = 0
    for servers in sizes:
        if backoff.pause_due(servers):
            without = 0
        else:
            without += 1
            assert without < servers


def test_passes_count_the_completed_walks():
    backoff = Backoff(2.0, 0.0)
    passes = []
    for _ in range(7):
        backoff.pause_due(3)
        passes.append(backoff.passes)
    assert passes == [0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("tried, due", [(0, [False, False, True]), (1, [False, True]), (2, [True]), (3, [False] * 2)])
def test_an_outage_may_go_on_where_the_last_one_stopped(tried: int, due: list[bool]):
    """A server that lets us in and drops us at once must not be hammered; its passes are told anew."""
    previous = Backoff(2.0, 0.0)
    for _ in range(tried):
        previous.pause_due(3)
    backoff = Backoff(2.0, 0.0)
    backoff.go_on_from(previous)
    assert backoff.passes == 0
    assert [backoff.pause_due(3) for _ in due] == due


@given(st.floats(0, 100), st.floats(0, 100), st.integers())
def test_the_jitter_is_added_and_bounded(wait: float, jitter: float, seed: int):
    backoff = Backoff(wait, jitter, random.Random(seed))
    for _ in range(20):
        assert wait <= backoff.pause() <= wait + jitter


@pytest.mark.parametrize("jitter, different", [(0.0, 1), (1.0, 50)])
def test_the_jitter_spreads_clients(jitter: float, different: int):
    """Or all clients of a server that comes back would knock at the same moment."""
    assert len({Backoff(2.0, jitter).pause() for _ in range(50)}) == different
