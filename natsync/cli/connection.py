"""From arguments, environment and contexts to a client."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import natsync
from natsync.cli.arguments import duration
from natsync.cli.contexts import load_context, selected_context
from natsync.errors import ConfigError, PermissionsError

__all__ = ["connect", "raise_refusal", "say", "say_once", "settings_of", "until_told"]

_VARIABLES = {
    "NATS_URL": "servers",
    "NATS_USER": "user",
    "NATS_PASSWORD": "password",
    "NATS_TOKEN": "token",
    "NATS_CREDS": "user_credentials",
    "NATS_NKEY": "nkeys_seed",
    "NATS_CA": "tls_ca",
    "NATS_CERT": "tls_cert",
    "NATS_KEY": "tls_key",
}
_LOGIN = ("user", "password", "token", "user_credentials", "nkeys_seed", "user_jwt_cb")
_TLS = ("tls", "tls_ca", "tls_cert", "tls_key", "tls_hostname", "tls_handshake_first", "tls_verify")
_OPTIONS = ("servers", "inbox_prefix", "timeout", *_LOGIN, *_TLS)

_A_MOMENT = 1.0  # seconds
_said: dict[str, object] = {}


def connect(args: argparse.Namespace) -> natsync.Client:
    """Connect as the arguments say, or else the environment, or else the context.

    Raises:
        NatsError: As `natsync.connect`.
    """
    if getattr(args, "verbose", False):
        logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s: %(message)s")
    options = settings_of(args, os.environ)
    servers = options.pop("servers", None)
    timeout = options.pop("timeout", None)
    if timeout is not None:
        options |= dict.fromkeys(("connect_timeout", "request_timeout", "flush_timeout"), timeout)
    return natsync.connect(
        servers, name="natsync", disconnected_cb=_tell, reconnected_cb=_tell, error_cb=_tell, **options
    )


def settings_of(args: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of `connect()`, and `servers` and `timeout` among them.

    The command line wins over a context that it names, that over the environment, that over the context that the
    environment names. The selected context counts only when nobody names a server: its secrets are for its own.

    Raises:
        ConfigError: A variable or a context cannot be used.
    """
    given = {name: value for name, value in vars(args).items() if name in _OPTIONS}
    around = {option: environ[variable] for variable, option in _VARIABLES.items() if environ.get(variable)}
    if environ.get("NATS_TIMEOUT"):
        try:
            around["timeout"] = duration(environ["NATS_TIMEOUT"])  # type: ignore[assignment]
        except argparse.ArgumentTypeError as exc:
            raise ConfigError(f"NATS_TIMEOUT: {exc}") from None
    named = getattr(args, "context", None)
    if named is not None:
        return _merged(given, load_context(named, environ), around)
    if getattr(args, "no_context", False):
        return _merged(given, around)
    context = environ.get("NATS_CONTEXT")
    if not context and "servers" not in {**given, **around}:
        context = selected_context(environ)
    return _merged(given, around, load_context(context, environ) if context else {})


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the stronger over the weaker; who logs in with what is never mixed, but for a password to a user."""
    merged: dict[str, Any] = {}
    for layer in layers:
        taken = merged.keys() & set(_LOGIN)
        if taken:
            allowed = {"password"} if taken == {"user"} and "user" not in layer else set()
            layer = {name: value for name, value in layer.items() if name not in _LOGIN or name in allowed}
        merged = {**layer, **merged}
    return merged


def say(words: str) -> None:
    """Tell the user something that is no output."""
    print("natsync:", words, file=sys.stderr, flush=True)


def say_once(words: str) -> None:
    """Tell the user of an error, unless that has been done: an event and a call may both bring it."""
    if _said.setdefault(words, mark := object()) is mark:
        say(words)


def raise_refusal(nc: natsync.Client) -> None:
    """Raise what the server said if it refused to let this user publish or subscribe."""
    if isinstance(nc.last_error, PermissionsError):
        raise nc.last_error


def _tell(event: natsync.events.Event) -> None:
    if isinstance(event, natsync.events.Reconnected):
        say(f"connected again, to {event.server}")
    elif isinstance(event, natsync.events.Disconnected):
        # Ctrl-C may cost the connection, and then the client is closed in a moment: no news for who has just ended it.
        if event.error is not None and not event.client.wait_closed(_A_MOMENT):
            say(f"the connection to {event.server} is lost ({event.error}); trying to get back")
    elif event.error is not None:
        say_once(str(event.error))


@contextlib.contextmanager
def until_told() -> Iterator[None]:
    """Run the block until it ends, or until Ctrl-C or SIGTERM end it, which is no failure then."""

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
