"""The snapshot of the counters."""

from __future__ import annotations

import dataclasses

import pytest

from natsync.policy.stats import Stats


def test_the_counters_are_those_of_the_contract_and_begin_with_zero():
    assert dataclasses.asdict(Stats()) == dict.fromkeys(
        ["in_msgs", "out_msgs", "in_bytes", "out_bytes", "reconnects", "errors", "dropped"], 0
    )


def test_a_snapshot_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Stats().in_msgs = 1  # type: ignore[misc]


def test_equal_snapshots_are_equal():
    assert Stats(in_msgs=1) == Stats(in_msgs=1) != Stats(in_msgs=2)
