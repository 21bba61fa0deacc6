"""The door: `connect()` and the class that it returns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from natsync.core.connection import Connection
from natsync.policy.options import make_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from natsync.policy.connect_options import ConnectOptions

__all__ = ["Client", "connect"]


class Client(Connection):
    """A client of NATS, made by `natsync.connect`.

    Safe to share among all threads of a process, and as a process-wide global. As a context manager it drains at the
    end of the block, and closes if the block raised an exception.
    """


def connect(servers: str | Iterable[str] | None = None, **options: Unpack[ConnectOptions]) -> Client:
    """Connect to one of the servers, and return the client.

    Blocks for at most `connect_timeout` (default 2.0 s) for each server: they are tried once, the first one given
    first, the others in random order. With `retry_on_failed_connect` it returns after that pass in any case, and goes
    on in the background. May be called from any thread.

    Args:
        servers: A URL, a comma-separated string of URLs, or a sequence of URLs; default ``nats://127.0.0.1:4222``.
            Scheme and port are optional; ``user:password@`` or ``token@`` before the host are percent-decoded and win
            over options.
        **options: See the page of options in the documentation.

    Returns:
        The connected client.

    Raises:
        ConfigError: An option or URL cannot be used; before any I/O.
        AuthorizationError, TLSError, ProtocolError, NatsTimeoutError, NoServersError: No server could be used. The
            first of these that some server gave is raised; its attribute `errors` maps each server's redacted URL to
            that server's exception.
    """
    client = Client(make_options(servers, options))
    client._engine.open()
    return client
