"""What every test gets: the plugin's servers, clients that are closed in any case, and a search for leaks afterwards.

A test that leaves a client open would harm others: it reconnects to the *next* test's server when a port comes back. So
clients are made with `connect`, which remembers them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from natsync.testing import NatsServer, pytest_plugin
from tests.support.leaks import describe_leaks, natsync_threads, open_sockets
from tests.support.proxy import FaultProxy
from tests.support.scripted import Script, ScriptedServer
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from natsync import Client

_has_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Load natsync's own plugin, unless pytest has: it does where natsync is installed, not in a bare tree."""
    if not config.pluginmanager.is_registered(pytest_plugin):
        config.pluginmanager.register(pytest_plugin, "natsync")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note whether the test itself failed, for the search for leaks."""
    report = yield
    if report.when == "call":
        item.stash[_has_failed] = report.failed
    return report


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread of natsync or a socket behind."""
    threads, sockets = set(natsync_threads()), open_sockets()
    yield
    if request.node.stash.get(_has_failed, False):
        return  # its traceback keeps alive what the test held, and the failure is news enough
    try:
        eventually(lambda: not describe_leaks(threads, sockets), 2.0)
    except AssertionError:
        left = describe_leaks(threads, sockets)
        if left:
            pytest.fail(f"the test leaves something behind: {left}", pytrace=False)


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Make clients as `natsync.connect` does; the test's end closes those that are still open."""
    import natsync

    with contextlib.ExitStack() as clients:

        def connect(servers: str | Sequence[str], **options: Any) -> Client:
            client = natsync.connect(servers, **options)
            clients.callback(client.close)
            return client

        yield connect


@pytest.fixture
def fresh_server() -> Iterator[NatsServer]:
    """A server of the test's own, which it may stop, kill, freeze and reload."""
    with NatsServer() as server:
        yield server


@pytest.fixture
def proxy(nats_server: NatsServer) -> Iterator[FaultProxy]:
    """A wire to the shared server whose faults the test switches."""
    with FaultProxy("127.0.0.1", nats_server.port) as wire:
        yield wire


@pytest.fixture
def scripted() -> Iterator[Callable[[Script | Sequence[Script]], ScriptedServer]]:
    """Start servers that follow scripts; the test's end stops them and raises what their scripts raised."""
    with contextlib.ExitStack() as servers:
        yield lambda script: servers.enter_context(ScriptedServer(script))
