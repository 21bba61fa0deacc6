"""Every fault strikes every activity: no call hangs, errors are the right ones, nothing comes twice, nothing stays."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from natsync import ConnectionClosedError, NatsError
from natsync.events import Closed, Reconnected
from tests.faults.activities import ACTIVITIES, BUFFER, CLOSE, DRAIN_TIMEOUT, WRITE_TIMEOUT, Activity
from tests.faults.calls import MARGIN
from tests.faults.faults import FAULTS, Fault
from tests.faults.invariants import check_once_and_in_order, check_subscriptions, unseal
from tests.faults.world import World
from tests.support.leaks import natsync_threads
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client

NAME = "matrix"
OPTIONS: dict[str, Any] = {
    "name": NAME,
    "reconnect_time_wait": 0.02,
    "reconnect_jitter": 0.01,
    "connect_timeout": 0.8 * TIME_FACTOR,
    "ping_interval": 1.0 * TIME_FACTOR,
    "max_outstanding_pings": 2,
    "write_timeout": WRITE_TIMEOUT,
    "drain_timeout": DRAIN_TIMEOUT,
    "reconnect_buffer_size": BUFFER,
    "pending_size": BUFFER,
    "dont_randomize": True,
}
EVENTS = (
    "connected_cb",
    "disconnected_cb",
    "reconnected_cb",
    "reconnect_error_cb",
    "closed_cb",
    "lame_duck_mode_cb",
    "error_cb",
)
_UNDER_FAULT = 0.2  # seconds under a fault that the client need not feel


def cells() -> list[Any]:
    """All pairs; those that need the cluster have its mark."""
    return [
        pytest.param(
            fault, ACTIVITIES[name], id=f"{fault.name}-{name}", marks=[pytest.mark.cluster] if fault.clustered else []
        )
        for fault in FAULTS
        for name in ACTIVITIES
    ]


@pytest.mark.parametrize("fault, activity", cells())
def test_cell(
    fault: Fault, activity: type[Activity], connect: Callable[..., Client], request: pytest.FixtureRequest
) -> None:
    cluster = request.getfixturevalue("cluster") if fault.clustered else None
    events = Recorder()
    with World(fault.config, cluster) as world:
        listeners = dict.fromkeys(EVENTS, events)
        seen = watch(connect(world.urls, reconnect_time_wait=0.02, **fault.witness))
        client = connect(fault.urls(world), **(OPTIONS | fault.options), **listeners)
        doing = activity(client)
        try:
            doing.start()
            fault.strike(world, client)
            doing.struck()
            wait_until_felt(fault, doing, events)
            doing.felt()
        finally:
            fault.heal(world, client)
        if fault.recovers and not doing.ends_client:
            check_recovery(fault, doing, world, events)
        else:
            check_end(fault, doing, events)
        client.close()
        left = [thread.name for thread in natsync_threads() if thread.name.startswith(f"natsync-{NAME}-")]
        assert not left, f"close() leaves {left}"
    connections = 1 + client.stats.reconnects if fault.may_overtake else 1
    check_calls(fault, doing)
    doing.check(connections)
    check_once_and_in_order([unseal(msg.data) for msg in seen.items], connections)


def watch(witness: Client) -> Recorder:
    """Have a second client see all that reaches the server, also what the first has no subscription for by then."""
    seen = Recorder()
    witness.subscribe("data", cb=seen)
    witness.flush()
    return seen


def wait_until_felt(fault: Fault, doing: Activity, events: Recorder) -> None:
    """Wait for the events that the fault must cause, in their order and with the right errors."""
    if doing.ends_client and doing.client.is_closed:
        return
    if not fault.feels:
        never(lambda: doing.client.is_closed and not doing.ends_client, _UNDER_FAULT)
        return

    def is_felt() -> bool:
        seen = iter(events.items)
        return all(
            any(isinstance(event, kind) and (error is None or isinstance(event.error, error)) for event in seen)
            for kind, error in fault.feels
        )

    with contextlib.suppress(AssertionError):
        eventually(lambda: is_felt() or (doing.ends_client and doing.client.is_closed), 6.0)
        return
    felt = [(type(event).__name__, event.error) for event in events.items[:20]]
    raise AssertionError(f"{fault.name} is not felt as {fault.feels}, but as {felt}")


def check_recovery(fault: Fault, doing: Activity, world: World, events: Recorder) -> None:
    """The client comes back by itself and works as before."""
    client = doing.client
    if fault.feels:
        eventually(lambda: any(isinstance(event, Reconnected) for event in events.items), message="no Reconnected")
    eventually(lambda: client.is_connected, message="not connected again")
    # What waited on a slow wire may cost one more connection: a round trip tells that it is over.
    eventually(lambda: is_calm(client), 5.0, "connected again, and no round trip works")
    doing.finish()
    doing.stop()
    check_subscriptions(world.servers, NAME, doing.held)


def is_calm(client: Client) -> bool:
    """Whether a round trip works on the present connection."""
    try:
        client.rtt(0.2)
    except NatsError:
        return False
    return True


def check_end(fault: Fault, doing: Activity, events: Recorder) -> None:
    """The client is closed, by the fault or by the activity, and said so in its last event."""
    eventually(lambda: doing.client.is_closed, 2 * (DRAIN_TIMEOUT + CLOSE), "the client does not end")
    doing.stop()
    eventually(lambda: any(isinstance(event, Closed) for event in events.items), MARGIN)
    assert isinstance(events.items[-1], Closed), events.items[-1]


def check_calls(fault: Fault, doing: Activity) -> None:
    """No call was late, and each raised only what is right."""
    right = doing.right
    if not fault.recovers:
        right = {what: (*right.get(what, ()), ConnectionClosedError) for what in doing.calls.made}
    doing.calls.check(right)
