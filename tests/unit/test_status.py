"""The table of states: complete, connected, and with one end."""

from __future__ import annotations

import pytest

from natsync.policy.status import TRANSITIONS, Status


def reachable_from(start: Status) -> set[Status]:
    found, queue = {start}, [start]
    while queue:
        for status in TRANSITIONS[queue.pop()] - found:
            found.add(status)
            queue.append(status)
    return found


def test_the_states_are_those_of_the_contract():
    assert [status.name for status in Status] == [
        "DISCONNECTED",
        "CONNECTING",
        "CONNECTED",
        "RECONNECTING",
        "DRAINING_SUBS",
        "DRAINING_PUBS",
        "CLOSED",
    ]
    assert all(status.value == status.name.lower() for status in Status)


def test_the_table_knows_every_state():
    assert set(TRANSITIONS) == set(Status)


def test_every_state_can_be_reached_from_the_start():
    assert reachable_from(Status.DISCONNECTED) == set(Status)


@pytest.mark.parametrize("status", Status)
def test_every_state_can_be_closed_and_closed_is_for_good(status: Status):
    if status is Status.CLOSED:
        assert not TRANSITIONS[status]
    else:
        assert Status.CLOSED in TRANSITIONS[status]
    assert status not in TRANSITIONS[status], "a way to itself would report the same event twice"


@pytest.mark.parametrize(
    "draining, on",
    [(Status.DRAINING_SUBS, {Status.DRAINING_PUBS, Status.CLOSED}), (Status.DRAINING_PUBS, {Status.CLOSED})],
)
def test_a_drain_goes_to_the_end(draining: Status, on: set[Status]):
    """Once begun it neither goes back nor reconnects."""
    assert TRANSITIONS[draining] == on


def test_only_a_connected_client_drains():
    assert [status for status in Status if Status.DRAINING_SUBS in TRANSITIONS[status]] == [Status.CONNECTED]
