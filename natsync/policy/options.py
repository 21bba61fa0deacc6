"""What a user may ask of `connect()`: names, types and defaults.

One frozen object, checked once, before any I/O; what contradicts what is in `conflicts`. A new option needs: a field
here, a line in `connect_options`, its reader, a test, a row in `docs/options.rst` and a line in the changelog.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from natsync.errors import BadSubjectError, ConfigError
from natsync.policy.conflicts import TLS_DETAILS, check_conflicts
from natsync.policy.urls import ServerUrl, parse_servers
from natsync.subjects import check_inbox_prefix

if TYPE_CHECKING:
    import socket

    from natsync.events import Event

__all__ = ["Options", "make_options"]

_MIB = 1024 * 1024


# Seconds: more than anybody means, and few enough for arithmetic with clocks.
_CENTURIES = 1e10


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _CENTURIES


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_Check = tuple[str, Callable[[Any], bool]]
_TEXT: _Check = ("a str", lambda v: isinstance(v, str) and bool(v))
_FLAG: _Check = ("True or False", lambda v: isinstance(v, bool))
_SECONDS: _Check = ("seconds as a number above 0", lambda v: _is_number(v) and v > 0)
_PAUSE: _Check = ("seconds as a number, 0 or more", lambda v: _is_number(v) and v >= 0)
_SIZE: _Check = ("a number of bytes above 0", lambda v: _is_int(v) and v > 0)
_SIZE_OR_0: _Check = ("a number of bytes, 0 for none", lambda v: _is_int(v) and v >= 0)
_COUNT: _Check = ("a whole number above 0", lambda v: _is_int(v) and v > 0)
_LIMIT: _Check = ("a whole number above 0, or -1 for no limit", lambda v: _is_int(v) and (v > 0 or v == -1))
_ATTEMPTS: _Check = ("a whole number, or None (or -1) for ever", lambda v: _is_int(v) and v >= -1)
_CALL: _Check = ("a callable", callable)
_PATH: _Check = ("a path", lambda v: isinstance(v, (str, os.PathLike)) and bool(str(v)))
_PATHS: _Check = (
    "a path, or a pair of paths (JWT, seed)",
    lambda v: _PATH[1](v) or (isinstance(v, (tuple, list)) and len(v) == 2 and all(_PATH[1](part) for part in v)),
)
_TLS: _Check = (
    "True, False, an ssl.SSLContext or a callable that returns one",
    lambda v: isinstance(v, (bool, ssl.SSLContext)) or callable(v),
)


def _opt(default: Any, check: _Check, *, secret: bool = False) -> Any:
    return dataclasses.field(default=default, repr=not secret, metadata={"check": check})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that `connect()` was asked for. Seconds are floats, sizes bytes, limits messages."""

    servers: tuple[ServerUrl, ...] = ()

    name: str | None = _opt(None, _TEXT)
    verbose: bool = _opt(False, _FLAG)
    pedantic: bool = _opt(False, _FLAG)
    no_echo: bool = _opt(False, _FLAG)
    inbox_prefix: str = _opt("_INBOX", _TEXT)

    connect_timeout: float = _opt(2.0, _SECONDS)
    retry_on_failed_connect: bool = _opt(False, _FLAG)
    dont_randomize: bool = _opt(False, _FLAG)
    ignore_discovered_servers: bool = _opt(False, _FLAG)
    dialer: Callable[[str, int, float], socket.socket] | None = _opt(None, _CALL)

    allow_reconnect: bool = _opt(True, _FLAG)
    max_reconnect_attempts: int | None = _opt(None, _ATTEMPTS)
    reconnect_time_wait: float = _opt(2.0, _PAUSE)
    reconnect_jitter: float = _opt(0.1, _PAUSE)
    reconnect_jitter_tls: float = _opt(1.0, _PAUSE)
    reconnect_delay_cb: Callable[[int], float] | None = _opt(None, _CALL)
    reconnect_to_server_cb: Callable[..., Any] | None = _opt(None, _CALL)
    reconnect_buffer_size: int = _opt(8 * _MIB, _SIZE_OR_0)
    ignore_auth_error_abort: bool = _opt(False, _FLAG)

    ping_interval: float = _opt(120.0, _SECONDS)
    max_outstanding_pings: int = _opt(2, _COUNT)
    pending_size: int = _opt(2 * _MIB, _SIZE)
    write_timeout: float = _opt(60.0, _SECONDS)

    request_timeout: float = _opt(5.0, _SECONDS)
    flush_timeout: float = _opt(10.0, _SECONDS)
    drain_timeout: float = _opt(30.0, _SECONDS)

    pending_msgs_limit: int = _opt(524288, _LIMIT)
    pending_bytes_limit: int = _opt(64 * _MIB, _LIMIT)
    callback_workers: int = _opt(8, _COUNT)
    no_callbacks_after_close: bool = _opt(False, _FLAG)

    user: str | None = _opt(None, _TEXT)
    password: str | None = _opt(None, ("a str", lambda v: isinstance(v, str)), secret=True)
    token: str | None = _opt(None, _TEXT, secret=True)
    user_info_cb: Callable[[], tuple[str, str]] | None = _opt(None, _CALL)
    token_cb: Callable[[], str] | None = _opt(None, _CALL)
    nkeys_seed: str | os.PathLike[str] | None = _opt(None, _PATH)
    nkeys_seed_str: str | None = _opt(None, _TEXT, secret=True)
    user_credentials: Any = _opt(None, _PATHS)
    user_credentials_str: str | None = _opt(None, _TEXT, secret=True)
    user_jwt_cb: Callable[[], str] | None = _opt(None, _CALL)
    signature_cb: Callable[[bytes], bytes] | None = _opt(None, _CALL)
    nkey: str | None = _opt(None, _TEXT)

    tls: bool | ssl.SSLContext | Callable[[], ssl.SSLContext] | None = _opt(None, _TLS)
    tls_ca: str | os.PathLike[str] | None = _opt(None, _PATH)
    tls_cert: str | os.PathLike[str] | None = _opt(None, _PATH)
    tls_key: str | os.PathLike[str] | None = _opt(None, _PATH)
    tls_key_password: str | None = _opt(None, _TEXT, secret=True)
    tls_hostname: str | None = _opt(None, _TEXT)
    tls_handshake_first: bool = _opt(False, _FLAG)
    tls_verify: bool = _opt(True, _FLAG)

    connected_cb: Callable[[Event], object] | None = _opt(None, _CALL)
    disconnected_cb: Callable[[Event], object] | None = _opt(None, _CALL)
    reconnected_cb: Callable[[Event], object] | None = _opt(None, _CALL)
    reconnect_error_cb: Callable[[Event], object] | None = _opt(None, _CALL)
    closed_cb: Callable[[Event], object] | None = _opt(None, _CALL)
    discovered_server_cb: Callable[[Event], object] | None = _opt(None, _CALL)
    lame_duck_mode_cb: Callable[[Event], object] | None = _opt(None, _CALL)
    error_cb: Callable[[Event], object] | None = _opt(None, _CALL)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if "check" in field.metadata:
                _check_value(field, getattr(self, field.name))
        if self.max_reconnect_attempts == -1:
            object.__setattr__(self, "max_reconnect_attempts", None)
        _check_inbox_prefix(self.inbox_prefix)
        check_conflicts(self)

    @property
    def wants_tls(self) -> bool:
        """Whether TLS is asked for, by an option or by a URL; then every server must speak it."""
        return (
            bool(self.tls)
            or not self.tls_verify
            or any(getattr(self, name) for name in TLS_DETAILS)
            or any(url.scheme == "tls" for url in self.servers)
        )


def make_options(servers: str | Iterable[str] | None, options: Mapping[str, Any]) -> Options:
    """Check what `connect()` was given.

    Raises:
        ConfigError: An option is unknown, ill-typed or contradicts another, or a URL cannot be read.
    """
    known = {field.name for field in dataclasses.fields(Options)} - {"servers"}
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"connect() has no option {name!r}{hint}", option=name)
    return Options(servers=parse_servers(servers), **options)


def _check_value(field: dataclasses.Field[Any], value: Any) -> None:
    takes, good = field.metadata["check"]
    if value is None and field.default is None:
        return
    if not good(value):
        # The value itself is not quoted when it may be a secret.
        got = type(value).__name__ if not field.repr or not isinstance(value, (int, float)) else repr(value)
        or_none = " or None" if field.default is None and "None" not in takes else ""
        raise ConfigError(f"{field.name} takes {takes}{or_none}, not {got}", option=field.name)


def _check_inbox_prefix(prefix: str) -> None:
    try:
        check_inbox_prefix(prefix)
    except BadSubjectError as exc:
        raise ConfigError(f"inbox_prefix: {exc}", option="inbox_prefix") from None
