"""What the tests of credentials share: clients whose every word is searched for secrets, and servers to log in to."""

from __future__ import annotations

import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from natsync.testing import NatsServer
from tests.security.leaking import Searcher
from tests.support.certificates import Authority, tls_config
from tests.support.proxy import FaultProxy
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from natsync import Client, NatsError
    from natsync.events import Event

    _Error = TypeVar("_Error", bound=NatsError)
    _Event = TypeVar("_Event", bound=Event)

_CALLBACKS = (
    *("connected_cb", "disconnected_cb", "reconnected_cb", "reconnect_error_cb"),
    *("closed_cb", "discovered_server_cb", "lame_duck_mode_cb", "error_cb"),
)
_QUICK = {"reconnect_time_wait": 0.02, "reconnect_jitter": 0.0}


class Login:
    """Makes clients as `natsync.connect` does, quick to reconnect, and watches all that they show.

    Attributes:
        events: All events of all these clients.
        searcher: Knows the secrets, and what was shown.
    """

    def __init__(self, searcher: Searcher) -> None:
        self.events = Recorder()
        self.searcher = searcher
        self._clients: list[Client] = []
        self._arguments: list[tuple[Any, dict[str, Any]]] = []

    def __call__(self, servers: str | Sequence[str], **options: Any) -> Client:
        import natsync

        self._arguments.append((servers, options))
        self.searcher.add_options(servers, options)
        callbacks = {name: self._watched(options.get(name)) for name in _CALLBACKS}
        try:
            client = natsync.connect(servers, **{**_QUICK, **options, **callbacks})
        except Exception as error:
            self.searcher.show_error(error)
            raise
        self._clients.append(client)
        return client

    def _watched(self, callback: Callable[[Event], object] | None) -> Callable[[Event], object]:
        def watched(event: Event) -> None:
            self.events(event)
            if callback is not None:
                callback(event)

        return watched

    def refused(
        self, kind: type[_Error], servers: str | Sequence[str], *, within: float = 1.0, **options: Any
    ) -> _Error:
        """Try to connect, and return the error, which is of exactly that kind and comes within so many seconds."""
        begin = time.monotonic()
        with pytest.raises(kind) as caught:
            self(servers, **options)
        assert time.monotonic() - begin < within * TIME_FACTOR
        assert type(caught.value) is kind
        return caught.value

    def failed(self, kind: type[_Error], call: Callable[..., object], *args: Any, **kwargs: Any) -> _Error:
        """Call something that fails with exactly that kind of error, and return the error."""
        with pytest.raises(kind) as caught:
            call(*args, **kwargs)
        assert type(caught.value) is kind
        self.searcher.show_error(caught.value)
        return caught.value

    def wait_event(self, kind: type[_Event], n: int = 1) -> _Event:
        """Wait for the n-th event of a kind, and return it."""
        events = eventually(
            lambda: found if len(found := [each for each in self.events.items if type(each) is kind]) >= n else None,
            message=f"{n} of {kind.__name__} in {self.events.items}",
        )
        assert events is not None
        event: _Event = events[n - 1]
        return event

    def finish(self) -> None:
        """Close all clients, and look at all that they have shown."""
        for client in self._clients:
            self.searcher.show_client(client)
            client.close()
            self.searcher.show_client(client)
        for event in self.events.items:
            self.searcher.show_event(event)
        for servers, options in self._arguments:
            self.searcher.add_options(servers, options)  # files hold other secrets now


@pytest.fixture
def login(capfd: pytest.CaptureFixture[str]) -> Iterator[Login]:
    """Connect with credentials; whatever the test does, no secret may be seen anywhere afterwards."""
    searcher = Searcher()
    searcher.setFormatter(logging.Formatter("%(name)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    login = Login(searcher)
    root.addHandler(searcher)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.ExitStack() as at_the_end:
            at_the_end.callback(login.finish)
            yield login
    finally:
        root.setLevel(level)
        root.removeHandler(searcher)
    searcher.show("stdout and stderr", *capfd.readouterr())
    leaks = searcher.leaks()
    assert not leaks, "\n".join(leaks)


@pytest.fixture
def undialled() -> Iterator[Callable[..., object]]:
    """A `dialer` that must not be asked: what is wrong is told before any I/O."""
    asked = Recorder()

    def dial(host: str, port: int, timeout: float) -> object:
        asked((host, port))
        raise OSError("asked for a connection")

    yield dial
    assert not asked.items


@pytest.fixture
def connect(login: Login) -> Login:
    """Connect as everywhere; here all that a client shows is searched for secrets in the end."""
    return login


# Of the tests of TLS.


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls_server(authority: Authority) -> Iterator[NatsServer]:
    with NatsServer(tls_config(authority.server())) as server:
        yield server


@pytest.fixture
def wire(tls_server: NatsServer) -> Iterator[FaultProxy]:
    """A proxy in front of the server; it sees nothing but TLS."""
    with FaultProxy("127.0.0.1", tls_server.port) as proxy:
        yield proxy


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads
