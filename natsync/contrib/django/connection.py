"""The client of a Django process, and what Django wants done around it: settings, database connections, tests.

Importing it reads no settings and connects nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import close_caches
from django.core.signals import setting_changed
from django.db import close_old_connections, reset_queries
from django.utils.module_loading import autodiscover_modules, import_string

import natsync
from natsync.contrib.handlers import Handlers
from natsync.contrib.lazy_client import LazyClient
from natsync.contrib.settings import connect_arguments
from natsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client, Msg

__all__ = ["client", "find_handlers", "handler", "read_settings"]

_SETTING = "NATS"
_MODULE = "nats_handlers"


def read_settings() -> tuple[Any, dict[str, Any]]:
    """Return the servers and the options for `natsync.connect` that the settings ask for; no I/O.

    Raises:
        ConfigError: `NATS` is no dictionary, or a key of it cannot be used; the text names the key.
    """
    given = getattr(settings, _SETTING, {})
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise ConfigError(f"settings.{_SETTING} takes a dict with names of options as keys", option=_SETTING)
    keys = {key.lower(): key for key in given}
    if len(keys) < len(given):
        raise ConfigError(f"settings.{_SETTING} has two keys that differ only in case", option=_SETTING)
    values = {name: _imported(name, given[key]) for name, key in keys.items()}
    return connect_arguments(values, lambda name: _spelled(keys.get(name, name)))


def _imported(name: str, value: Any) -> Any:
    # Settings are read before the apps are loaded, so they name functions, as Django's own settings do.
    if isinstance(value, str) and (name.endswith("_cb") or name in {"dialer", "tls"}):
        try:
            return import_string(value)
        except ImportError as error:
            raise ConfigError(f"{_spelled(name.upper())}: {error}", option=_spelled(name.upper())) from error
    return value


def _spelled(key: str) -> str:
    return f"NATS[{key!r}]"


def _connect() -> Client:
    servers, options = read_settings()
    return natsync.connect(servers, **options)


client = LazyClient(_connect)
"""The client of this process: has all that a `natsync.Client` has, and connects at the first use."""


def _as_in_a_request(msg: Msg, call: Callable[[Msg], object]) -> None:
    # What Django does at the begin and the end of a request, by its signals; here nobody sends them. Otherwise a
    # handler finds a connection that the database has closed long ago, and those of idle threads stay open.
    reset_queries()
    close_old_connections()
    try:
        call(msg)
    finally:
        close_old_connections()
        close_caches()


client.with_handler(_as_in_a_request)

_handlers = Handlers()


def handler(
    subject: str, *, queue: str | None = None, **options: Any
) -> Callable[[Callable[[Msg], object]], Callable[[Msg], object]]:
    """Declare a function as a handler of messages, as a decorator; `manage.py nats_worker` runs all of them.

    The function stays what it is, so a test can call it. In a worker it runs on a thread of the client, with database
    connections as in a request.

    Args:
        subject: What to subscribe to.
        queue: The queue group: each message goes to one of all workers. None: every worker gets every message.
        **options: Others of `Client.subscribe`, such as `workers`.
    """
    return _handlers.declare(subject, queue=queue, **options)


def find_handlers() -> Handlers:
    """Import the modules `nats_handlers` of all installed apps, and return what they declare."""
    autodiscover_modules(_MODULE)
    return _handlers


def _on_setting_changed(*, setting: str, **_: object) -> None:
    if setting == _SETTING:
        client.close()


# Sent by override_settings and its relatives in tests; the next use reads the settings again.
setting_changed.connect(_on_setting_changed, dispatch_uid="natsync")
