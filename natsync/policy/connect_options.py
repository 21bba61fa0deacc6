"""The keyword arguments of `natsync.connect`, for type checkers alone: making such a class takes time at every import.

Meanings and defaults stand in `options`; a test holds the two against each other.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import socket

    from natsync.events import Event

__all__ = ["ConnectOptions"]


class ConnectOptions(TypedDict, total=False):
    """The keyword arguments of `natsync.connect`, for type checkers. Meanings and defaults: `Options`."""

    name: str | None
    verbose: bool
    pedantic: bool
    no_echo: bool
    inbox_prefix: str
    connect_timeout: float
    retry_on_failed_connect: bool
    dont_randomize: bool
    ignore_discovered_servers: bool
    dialer: Callable[[str, int, float], socket.socket] | None
    allow_reconnect: bool
    max_reconnect_attempts: int | None
    reconnect_time_wait: float
    reconnect_jitter: float
    reconnect_jitter_tls: float
    reconnect_delay_cb: Callable[[int], float] | None
    reconnect_to_server_cb: Callable[..., Any] | None
    reconnect_buffer_size: int
    ignore_auth_error_abort: bool
    ping_interval: float
    max_outstanding_pings: int
    pending_size: int
    write_timeout: float
    request_timeout: float
    flush_timeout: float
    drain_timeout: float
    pending_msgs_limit: int
    pending_bytes_limit: int
    callback_workers: int
    no_callbacks_after_close: bool
    user: str | None
    password: str | None
    token: str | None
    user_info_cb: Callable[[], tuple[str, str]] | None
    token_cb: Callable[[], str] | None
    nkeys_seed: str | os.PathLike[str] | None
    nkeys_seed_str: str | None
    user_credentials: str | os.PathLike[str] | tuple[str | os.PathLike[str], str | os.PathLike[str]] | None
    user_credentials_str: str | None
    user_jwt_cb: Callable[[], str] | None
    signature_cb: Callable[[bytes], bytes] | None
    nkey: str | None
    tls: bool | ssl.SSLContext | Callable[[], ssl.SSLContext] | None
    tls_ca: str | os.PathLike[str] | None
    tls_cert: str | os.PathLike[str] | None
    tls_key: str | os.PathLike[str] | None
    tls_key_password: str | None
    tls_hostname: str | None
    tls_handshake_first: bool
    tls_verify: bool
    connected_cb: Callable[[Event], object] | None
    disconnected_cb: Callable[[Event], object] | None
    reconnected_cb: Callable[[Event], object] | None
    reconnect_error_cb: Callable[[Event], object] | None
    closed_cb: Callable[[Event], object] | None
    discovered_server_cb: Callable[[Event], object] | None
    lame_duck_mode_cb: Callable[[Event], object] | None
    error_cb: Callable[[Event], object] | None
