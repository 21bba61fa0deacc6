"""The faults: for each how it strikes and heals, what the client must feel, and what its calls may raise meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from natsync import (
    AuthorizationError,
    ConnectionClosedError,
    MaxConnectionsError,
    NatsConnectionError,
    NatsError,
    NatsTimeoutError,
    NoServersError,
    StaleConnectionError,
)
from natsync.events import Closed, Disconnected, Event, LameDuck, Reconnected, ReconnectFailed
from tests.faults.scripts import accept_and, answer_connect_and
from tests.faults.world import narrow_dialer
from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client
    from tests.faults.world import World

Feelings = tuple[tuple[type[Event], type[NatsError] | tuple[type[NatsError], ...] | None], ...]


def _nothing(world: World, client: Client) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Fault:
    """One row of the matrix."""

    name: str
    strike: Callable[[World, Client], object]
    heal: Callable[[World, Client], object] = _nothing
    feels: Feelings = ()
    """Events, with the type of their error, that the client gets before the fault is healed."""
    recovers: bool = True
    """The client is back by itself afterwards; else it is closed for good."""
    may_overtake: bool = False
    """Bytes of the lost connection may still reach the server, beside those of the new one."""
    wired: bool = True
    """The client connects through the faulty wire; else straight to the server."""
    clustered: bool = False
    config: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    witness: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the second client, which the fault does not concern."""

    def urls(self, world: World) -> list[str]:
        """Where the client connects to."""
        return [world.proxy.url] if self.wired and not self.clustered else world.urls


LOST: Feelings = ((Disconnected, NatsConnectionError),)
BACK: Feelings = (*LOST, (Reconnected, None))
STALE: Feelings = ((Disconnected, StaleConnectionError), (ReconnectFailed, NatsTimeoutError))
NOT_LET_IN: Feelings = (*LOST, (ReconnectFailed, NoServersError))
# To a client that publishes at that moment the server's reset may overtake its last words.
REJECTED: Feelings = (
    (Disconnected, (AuthorizationError, NatsConnectionError)),
    (ReconnectFailed, AuthorizationError),
)
UNANSWERED: Feelings = (*LOST, (ReconnectFailed, NatsTimeoutError))

NARROW: dict[str, Any] = {"dialer": narrow_dialer}
WATCHFUL: dict[str, Any] = {**NARROW, "ping_interval": 0.2 * TIME_FACTOR}
"""Notices soon that nobody answers; on a busy machine also when somebody is only slow."""
_LAME = 'lame_duck_duration: "30s"\nlame_duck_grace_period: "50ms"\n'
_OLD = 'authorization { users: [{ user: "joe", password: "old" }, { user: "eve", password: "eve" }] }\n'
_NEW = _OLD.replace("old", "new")
_JOE = {"user": "joe", "password": "old"}
_EVE = {"user": "eve", "password": "eve"}


def _squeeze(world: World, client: Client) -> None:
    world.proxy.latency = 0.02
    world.proxy.rate = 100_000.0


def _widen(world: World, client: Client) -> None:
    world.proxy.latency = world.proxy.rate = 0.0


def _crumble(world: World, client: Client) -> None:
    world.proxy.fragment = 1
    world.proxy.cut()


def _mend(world: World, client: Client) -> None:
    world.proxy.fragment = 0


def _refuse(world: World, client: Client) -> None:
    world.proxy.refuse()
    world.proxy.cut()


def _be_silent(world: World, client: Client) -> None:
    world.proxy.accept_silent()
    world.proxy.cut()


def _forget_name(world: World, client: Client) -> None:
    client.set_server_pool("nats://nowhere.invalid:4222")
    world.proxy.cut()


def _remember_name(world: World, client: Client) -> None:
    with contextlib.suppress(ConnectionClosedError):  # the activity may have closed it
        client.set_server_pool(world.proxy.url)


def _end_lame_duck(world: World, client: Client) -> None:
    eventually(lambda: not world.server.is_running)
    world.server.start()


def _handshake(name: str, script: Callable[..., None], feels: Feelings = NOT_LET_IN) -> Fault:
    return Fault(name, lambda w, c: w.play(script), lambda w, c: w.play_no_more(), feels)


FAULTS: tuple[Fault, ...] = (
    # The server
    Fault("killed", lambda w, c: w.server.kill(), lambda w, c: w.server.start(), NOT_LET_IN, wired=False),
    Fault("restarted", lambda w, c: w.server.restart(), feels=BACK, wired=False),
    Fault(
        "frozen",
        lambda w, c: w.server.pause(),
        lambda w, c: w.server.resume(),
        STALE,
        may_overtake=True,
        wired=False,
        options=WATCHFUL,
    ),
    Fault(
        "lame-duck",
        lambda w, c: w.server.lame_duck(),
        _end_lame_duck,
        ((LameDuck, None), *LOST),
        wired=False,
        config=_LAME,
    ),
    Fault(
        "server-full",
        lambda w, c: w.occupy(),
        lambda w, c: w.vacate(),
        (*LOST, (ReconnectFailed, MaxConnectionsError)),
        config="max_connections: 2\n",  # the client, and the witness,
    ),
    Fault(
        "auth-changed",
        lambda w, c: w.server.reload(_NEW),
        feels=(*REJECTED, (Closed, AuthorizationError)),
        recovers=False,
        config=_OLD,
        options=_JOE,
        witness=_EVE,
    ),
    Fault(
        "auth-changed-and-back",
        lambda w, c: w.server.reload(_NEW),
        lambda w, c: w.server.reload(_OLD),
        REJECTED,
        config=_OLD,
        options={**_JOE, "ignore_auth_error_abort": True},
        witness=_EVE,
    ),
    # The wire
    Fault("cut", lambda w, c: w.proxy.cut(), feels=BACK),
    Fault("reset", lambda w, c: w.proxy.reset(), feels=BACK),
    Fault("half-closed", lambda w, c: w.proxy.half_close(), feels=BACK, may_overtake=True),
    Fault(
        "black-holed",
        lambda w, c: w.proxy.black_hole(),
        lambda w, c: w.proxy.heal(),
        STALE,
        may_overtake=True,
        options=WATCHFUL,
    ),
    Fault("slowed", _squeeze, _widen, may_overtake=True, options=NARROW),
    Fault("byte-by-byte", _crumble, _mend, BACK, may_overtake=True),
    # The way back
    Fault("refused", _refuse, lambda w, c: w.proxy.accept(), NOT_LET_IN),
    Fault("silent", _be_silent, lambda w, c: w.proxy.heal(), UNANSWERED),
    _handshake("silent-after-info", accept_and("info", "wait"), UNANSWERED),
    _handshake("cut-before-info", accept_and()),
    _handshake("cut-in-info", accept_and("half info")),
    _handshake("cut-after-info", accept_and("info")),
    _handshake("cut-after-connect", answer_connect_and()),
    _handshake("reset-after-connect", answer_connect_and("reset")),
    _handshake("cut-in-pong", answer_connect_and("half pong")),
    Fault("name-unknown", _forget_name, _remember_name, NOT_LET_IN),
    # The cluster
    Fault("node-lost", lambda w, c: w.lose_node(c), lambda w, c: w.rise(0, 1, 2), BACK, clustered=True),
    Fault("cluster-lost", lambda w, c: w.lose_all(), lambda w, c: w.rise(2, 0, 1), NOT_LET_IN, clustered=True),
)
