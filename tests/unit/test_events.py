"""What lifecycle callbacks get: frozen values that show who, why and where."""

from __future__ import annotations

import dataclasses

import pytest

from natsync import events
from natsync.errors import NatsConnectionError
from natsync.events import DiscoveredServers, Event

KINDS = [getattr(events, name) for name in events.__all__]
LOST = NatsConnectionError("lost")


class Client:
    def __repr__(self) -> str:
        raise AssertionError("showing an event must not show its client: it may be busy, and holds options")


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_has_the_same_four(kind: type[Event]):
    client, subscription = Client(), object()
    event = kind(client, LOST, "nats://a:1", subscription)
    assert (event.client, event.error, event.server, event.subscription) == (client, LOST, "nats://a:1", subscription)
    bare = kind(client)
    assert (bare.error, bare.server, bare.subscription) == (None, None, None)
    assert (bare.dropped_msgs, bare.dropped_bytes) == (0, 0)
    assert isinstance(event, Event)


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_shows_itself_without_its_client(kind: type[Event]):
    shown = repr(kind(Client(), server="nats://a:1"))
    assert shown.startswith(f"{kind.__name__}(")
    assert "nats://a:1" in shown


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_cannot_be_changed(kind: type[Event]):
    event = kind(Client())
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.error = LOST  # type: ignore[misc]


def test_discovered_servers_are_named():
    assert DiscoveredServers(Client()).urls == ()
    assert DiscoveredServers(Client(), urls=("nats://b:2",)).urls == ("nats://b:2",)
