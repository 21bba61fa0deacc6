"""A process that handles messages until it is told to end: the part that is the same in all frameworks."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from natsync.errors import ConfigError, ConnectionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from natsync import Client
    from natsync.contrib.handlers import Handler

__all__ = ["interrupt_once", "run_worker"]


def run_worker(client: Client, handlers: Iterable[Handler], say: Callable[[str], object]) -> None:
    """Subscribe the handlers, and block until SIGTERM, Ctrl-C or the client's end; then drain.

    Draining lets the handlers finish what has arrived, for at most the option `drain_timeout`; Ctrl-C ends that.
    Outside of the main thread there are no signals: then somebody else has to drain the client.

    Args:
        client: A connected client.
        handlers: What to subscribe.
        say: Called with lines for the user.

    Raises:
        ConfigError: There are no handlers, or one is declared with what `subscribe` does not take.
        ConnectionClosedError: The client has ended by itself; the cause says why.
        NatsTimeoutError, NatsConnectionError: Draining did not succeed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        if in_main:
            signal.signal(signal.SIGTERM, interrupt_once)
        _subscribe(client, handlers, say)
        client.wait_closed()
    except KeyboardInterrupt:
        if in_main:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say("Told to end; finishing what has arrived")
        client.drain()
    else:
        reason = client.last_error
        raise ConnectionClosedError(f"the connection is lost for good: {reason or 'the client was closed'}") from reason
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def interrupt_once(*_: object) -> None:
    """Raise KeyboardInterrupt, as a handler of SIGTERM; later ones are ignored.

    Whoever runs several processes may pass on by SIGTERM the Ctrl-C that all of them have got.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _subscribe(client: Client, handlers: Iterable[Handler], say: Callable[[str], object]) -> None:
    declared = list(handlers)
    if not declared:
        raise ConfigError("there are no handlers to run; declare some with the decorator")
    for handler in declared:
        try:
            handler.subscribe(client)
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"{handler}: {error}") from error
        say(f"  {handler}")
    client.flush()
    say(f"Connected to {client.connected_url}, waiting for messages")
