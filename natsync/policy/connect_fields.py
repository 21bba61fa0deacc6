"""What the client says of itself in CONNECT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from natsync._version import __version__

if TYPE_CHECKING:
    from natsync.policy.options import Options
    from natsync.protocol.info import ServerInfo

__all__ = ["connect_fields"]


def connect_fields(
    options: Options, info: ServerInfo, credentials: Mapping[str, object], *, tls: bool = False
) -> Mapping[str, object]:
    """Return the fields of CONNECT for one server; holds secrets, is never logged.

    Args:
        options: The client's.
        info: What the server said of itself.
        credentials: The fields that say who the client is.
        tls: The user asks for TLS [nats.go: the option, not what came of it].
    """
    return {
        "verbose": options.verbose,
        "pedantic": options.pedantic,
        "tls_required": tls,
        "name": options.name or "",
        "lang": "python",
        "version": __version__,
        "protocol": 1,
        "echo": not options.no_echo,
        "headers": info.headers,
        "no_responders": info.headers,
        **credentials,
    }
