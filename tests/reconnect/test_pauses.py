"""In which order servers are tried, where the pauses are, how long they take, and what cuts them short."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from natsync import ConfigError, ConnectionReconnectingError, ServerInfo
from tests.support.proxy import FaultProxy
from tests.support.scripted import ScriptError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client
    from natsync.testing import NatsServer
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

LONG: dict[str, Any] = {"reconnect_time_wait": 60.0, "dont_randomize": True}
AT_ONCE = 2.0 * TIME_FACTOR  # a few milliseconds, on a machine that has nothing else to do


class Tries:
    """Servers, and a client that notes which it tries when; each lets the client in or closes at once, by turns."""

    def __init__(self, scripted: Scripted, connect: Connect) -> None:
        self._scripted = scripted
        self._connect = connect
        self._names: dict[int, str] = {}
        self.all: list[tuple[str, float]] = []

    def connect(self, servers: str | list[str], **options: Any) -> Client:
        return self._connect(servers, dialer=self._dial, **options)

    def _dial(self, host: str, port: int, timeout: float) -> socket.socket:
        # Here, and not where the server accepts: what comes late there comes too soon the next time.
        self.all.append((self._names[port], time.monotonic()))
        return socket.create_connection((host, port), timeout)

    def server(self, name: str, *answers: str) -> str:
        def script(conn: Conn) -> None:
            answer = answers[conn.number] if conn.number < len(answers) else "shut"
            with contextlib.suppress(ScriptError):  # the test may end in the middle of a handshake
                if answer in ("drop", "good"):
                    conn.handshake()
                if answer == "good":
                    conn.serve()

        server = self._scripted(script)
        self._names[server.port] = name
        return server.url

    @property
    def order(self) -> str:
        return "".join(name for name, _ in self.all)

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for (_, earlier), (_, later) in itertools.pairwise(self.all)]


@pytest.fixture
def tries(scripted: Scripted, connect: Connect) -> Tries:
    return Tries(scripted, connect)


def lose(proxy: FaultProxy, client: Client) -> None:
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.is_reconnecting)


# Order and pauses


def test_a_single_server_gets_a_pause_before_each_attempt(tries: Tries) -> None:
    tries.connect(tries.server("a", "drop"), reconnect_time_wait=0.1, reconnect_jitter=0.0)
    eventually(lambda: len(tries.all) >= 5)
    assert all(0.1 <= gap <= 0.1 + AT_ONCE for gap in tries.gaps)


def test_three_servers_get_a_pause_before_the_first_is_tried_again(tries: Tries) -> None:
    servers = [tries.server("a", "drop"), tries.server("b"), tries.server("c")]
    tries.connect(servers, reconnect_time_wait=1.0, reconnect_jitter=0.0, dont_randomize=True)
    eventually(lambda: len(tries.all) >= 7)
    assert tries.order[:7] == "abcabca"
    assert [gap >= 1.0 for gap in tries.gaps[:6]] == [False, False, True, False, False, True]


def test_another_server_is_found_without_a_pause(tries: Tries) -> None:
    servers = [tries.server("a", "drop"), tries.server("b"), tries.server("c", "good")]
    client = tries.connect(servers, **LONG)
    eventually(lambda: client.stats.reconnects == 1)
    assert tries.order == "abc"
    assert client.servers == (servers[2], servers[0], servers[1])


def test_servers_that_let_us_in_and_drop_us_are_not_hammered(tries: Tries) -> None:
    drops = ["drop"] * 10_000
    tries.connect([tries.server("a", *drops), tries.server("b", *drops)], reconnect_time_wait=0.2, dont_randomize=True)
    never(lambda: tries.order.count("a") > 4, 0.5, "the same server was tried again without a pause")


def test_the_client_does_not_spin(tries: Tries) -> None:
    tries.connect(tries.server("a", "drop"), reconnect_time_wait=0.1, reconnect_jitter=0.0)
    never(lambda: len(tries.all) > 7, 0.5)


def test_shuffled_servers_are_all_tried(tries: Tries) -> None:
    servers = [tries.server("a", "drop"), *(tries.server(name) for name in "bcdef")]
    tries.connect(servers, reconnect_time_wait=0.0, reconnect_jitter=0.0)
    eventually(lambda: len(tries.all) >= 12)
    assert tries.order[0] == "a"
    assert sorted(tries.order[1:6]) == list("bcdef")
    assert tries.order[6] == "a"


def test_the_jitter_is_added(tries: Tries) -> None:
    tries.connect(tries.server("a", "drop"), reconnect_time_wait=0.02, reconnect_jitter=0.2)
    eventually(lambda: len(tries.all) >= 8)
    assert all(0.02 <= gap <= 0.22 + AT_ONCE for gap in tries.gaps)
    assert max(tries.gaps) - min(tries.gaps) > 0.02


# reconnect_delay_cb


def test_the_delay_callback_gets_the_number_of_passes(tries: Tries) -> None:
    passes = Recorder()

    def delay(number: int) -> float:
        passes(number)
        return 0.02 * number

    tries.connect(tries.server("a", "drop"), reconnect_delay_cb=delay, reconnect_time_wait=60.0)
    eventually(lambda: len(tries.all) >= 5)
    assert passes.items[:4] == [1, 2, 3, 4]
    for number, gap in enumerate(tries.gaps[:4]):
        assert 0.02 * (number + 1) <= gap <= 0.02 * (number + 1) + AT_ONCE


def test_the_delay_callback_is_asked_once_a_pass(tries: Tries) -> None:
    asked: list[tuple[int, str]] = []

    def delay(number: int) -> float:
        asked.append((number, tries.order))
        return 0.0

    tries.connect(
        [tries.server("a", "drop"), tries.server("b"), tries.server("c")], reconnect_delay_cb=delay, dont_randomize=True
    )
    eventually(lambda: len(asked) >= 3)
    assert asked[:3] == [(1, "abc"), (2, "abcabc"), (3, "abcabcabc")]


def test_the_passes_of_each_outage_are_counted_anew(tries: Tries) -> None:
    passes = Recorder()

    def delay(number: int) -> float:
        passes(number)
        return 0.0

    client = tries.connect(tries.server("a", "drop", "shut", "drop", "shut", "shut", "good"), reconnect_delay_cb=delay)
    eventually(lambda: client.stats.reconnects == 2)
    assert passes.items == [1, 2, 1, 2, 3]


@pytest.mark.parametrize("answer", [ValueError("no"), "soon", None])
def test_a_delay_callback_that_fails_leaves_the_usual_pause(answer: object, tries: Tries) -> None:
    def delay(number: int) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    tries.connect(tries.server("a", "drop"), reconnect_delay_cb=delay, reconnect_time_wait=0.1, reconnect_jitter=0.0)
    eventually(lambda: len(tries.all) >= 3)
    assert all(0.1 <= gap <= 0.1 + AT_ONCE for gap in tries.gaps)


# What cuts a pause short


def test_close_cuts_a_pause_short(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **LONG)
    lose(proxy, client)
    never(lambda: not client.is_reconnecting, 0.05)
    begin = time.monotonic()
    client.close()
    assert time.monotonic() - begin < AT_ONCE
    assert client.is_closed


def test_drain_cuts_a_pause_short(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **LONG)
    lose(proxy, client)
    begin = time.monotonic()
    with pytest.raises(ConnectionReconnectingError):
        client.drain()
    assert time.monotonic() - begin < AT_ONCE


def test_force_reconnect_cuts_a_pause_short(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **LONG)
    lose(proxy, client)
    never(lambda: not client.is_reconnecting, 0.05)
    proxy.accept()
    never(lambda: client.is_connected, 0.05)
    begin = time.monotonic()
    client.force_reconnect()
    eventually(lambda: client.is_connected)
    assert time.monotonic() - begin < AT_ONCE


def test_force_reconnect_cuts_every_pause_short(proxy: FaultProxy, connect: Connect) -> None:
    failed = Recorder()
    client = connect(proxy.url, reconnect_error_cb=failed, **LONG)
    lose(proxy, client)
    for number in range(1, 6):
        client.force_reconnect()
        failed.wait_for(number)
    proxy.accept()
    client.force_reconnect()
    eventually(lambda: client.is_connected)


def test_close_ends_an_attempt_under_way(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, reconnect_time_wait=0.0, reconnect_jitter=0.0, connect_timeout=60.0)
    proxy.accept_silent()
    proxy.cut()
    eventually(lambda: proxy.accepted == 2)
    begin = time.monotonic()
    client.close()
    assert time.monotonic() - begin < AT_ONCE


def test_a_callback_may_close_in_a_pause(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, disconnected_cb=lambda event: event.client.close(), **LONG)
    proxy.refuse()
    proxy.cut()
    assert client.wait_closed(1.0 * TIME_FACTOR)


# reconnect_to_server_cb


def test_the_callback_chooses_the_server(tries: Tries) -> None:
    asked = Recorder()
    servers = [tries.server("a", "drop"), tries.server("b", "good"), tries.server("c", "good")]

    def choose(urls: tuple[str, ...], info: ServerInfo) -> tuple[str, float]:
        asked((urls, info))
        return servers[2], 0.0

    client = tries.connect(servers, reconnect_to_server_cb=choose, **LONG)
    eventually(lambda: client.stats.reconnects == 1)
    assert tries.order == "ac"
    ((urls, info),) = asked.items
    assert sorted(urls) == sorted(servers)
    assert isinstance(info, ServerInfo)
    assert info.server_id == "SCRIPTED"


def test_the_callback_chooses_the_delay(tries: Tries) -> None:
    server = tries.server("a", "drop", "shut", "good")
    client = tries.connect(server, reconnect_to_server_cb=lambda urls, info: (server, 0.15), **LONG)
    eventually(lambda: client.stats.reconnects == 1)
    assert all(0.15 <= gap <= 0.15 + AT_ONCE for gap in tries.gaps)


def answers_none(urls: object, info: object) -> None:
    return None


def answers_a_stranger(urls: object, info: object) -> tuple[str, float]:
    return "nats://127.0.0.1:1", 0.0


def answers_nonsense(urls: object, info: object) -> int:
    return 7


def raises(urls: object, info: object) -> None:
    raise RuntimeError("no choice")


@pytest.mark.parametrize("choose", [answers_none, answers_a_stranger, answers_nonsense, raises])
def test_without_a_usable_choice_the_list_is_followed(choose: object, tries: Tries) -> None:
    failed = Recorder()
    servers = [tries.server("a", "drop"), tries.server("b", "good")]
    client = tries.connect(servers, reconnect_to_server_cb=choose, reconnect_error_cb=failed, **LONG)
    eventually(lambda: client.stats.reconnects == 1)
    assert tries.order == "ab"
    if choose is answers_a_stranger:
        (event,) = failed.wait_for(1)
        assert (event.server, type(event.error)) == ("nats://127.0.0.1:1", ConfigError)


@pytest.mark.parametrize("call", ["close", "force_reconnect"])
def test_the_chosen_delay_is_cut_short(call: str, nats_server: NatsServer, connect: Connect) -> None:
    with FaultProxy("127.0.0.1", nats_server.port) as proxy:
        client = connect(proxy.url, reconnect_to_server_cb=lambda urls, info: (urls[0], 60.0))
        proxy.cut()
        eventually(lambda: client.is_reconnecting)
        never(lambda: client.is_connected, 0.05)
        begin = time.monotonic()
        getattr(client, call)()
        eventually(lambda: client.is_closed or client.is_connected)
        assert time.monotonic() - begin < AT_ONCE
        client.close()
