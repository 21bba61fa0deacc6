"""natsync in Flask: an extension with one client a process, set from `app.config`.

::

    app = Flask(__name__)
    app.config["NATS_URL"] = "nats://127.0.0.1:4222"
    nats = Nats(app)

    @app.post("/orders")
    def order():
        nats.publish("orders.new", request.get_data())
        return "", 202
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

import click
from flask import Flask, current_app, has_app_context

import natsync
from natsync.contrib.handlers import Handlers
from natsync.contrib.lazy_client import LazyClient
from natsync.contrib.settings import connect_arguments
from natsync.contrib.worker import run_worker
from natsync.errors import NatsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client, Msg

    # All that a client has is found by `__getattr__`; type checkers read it here.
    _Base = LazyClient
else:
    _Base = object

__all__ = ["Nats"]

_PREFIX = "NATS_"
_EXTENSION = "natsync"


class Nats(_Base):
    """The extension: has all that a `natsync.Client` has, and connects at the first use.

    Set by `app.config`: `NATS_URL` (or `NATS_SERVERS`), and each option of `natsync.connect` as `NATS_<OPTION>`, for
    example `NATS_REQUEST_TIMEOUT`. Bad settings raise `ConfigError` with the key's name, in `init_app` and at the first
    use; what is changed after the first use has no effect. Each app has its own client, one a process, which all
    threads share and which connects anew in forked workers. Callbacks run in a context of the app.

    Outside of an app's context, as in a thread or a script, it is the client of the app that it was made for.

    Args:
        app: The application, or None to call `init_app` later.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        self._handlers = Handlers()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Prepare an application; checks its settings and connects nothing.

        Raises:
            ConfigError: A setting cannot be used.
        """
        _arguments(app)
        client = LazyClient(lambda: _connect(app))
        client.with_handler(_in_context_of(app))
        app.extensions[_EXTENSION] = client
        app.cli.add_command(_worker_command(client, self._handlers))
        self._apps.add(app)

    @property
    def client(self) -> LazyClient:
        """The client of the current app.

        Raises:
            RuntimeError: There is no current app, or `init_app` was not called for it.
        """
        if has_app_context():
            app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - Flask's way
        elif len(self._apps) == 1:
            (app,) = self._apps
        else:
            raise RuntimeError("natsync is used outside of an app's context; do it within `with app.app_context():`")
        if _EXTENSION not in app.extensions:
            raise RuntimeError(f"the app {app.name!r} does not know natsync; call nats.init_app(app)")
        client: LazyClient = app.extensions[_EXTENSION]
        return client

    if not TYPE_CHECKING:  # it would have them take any name for a good one

        def __getattr__(self, name: str) -> Any:
            # A name that no client has is answered without an app, so that tools can look at the extension.
            if name.startswith("_") or not (hasattr(LazyClient, name) or hasattr(natsync.Client, name)):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(self.client, name)

    def __repr__(self) -> str:
        return f"<Nats, {', '.join(sorted(app.name for app in self._apps)) or 'without an app'}>"

    def handler(
        self, subject: str, *, queue: str | None = None, **options: Any
    ) -> Callable[[Callable[[Msg], object]], Callable[[Msg], object]]:
        """Declare a function as a handler of messages, as a decorator; `flask nats-worker` runs all of them.

        Args:
            subject: What to subscribe to.
            queue: The queue group: each message goes to one of all workers. None: every worker gets every message.
            **options: Others of `Client.subscribe`, such as `workers`.
        """
        return self._handlers.declare(subject, queue=queue, **options)


def _arguments(app: Flask) -> tuple[Any, dict[str, Any]]:
    settings = {key.removeprefix(_PREFIX).lower(): app.config[key] for key in app.config if key.startswith(_PREFIX)}
    return connect_arguments(settings, lambda name: _PREFIX + name.upper())


def _connect(app: Flask) -> Client:
    servers, options = _arguments(app)
    return natsync.connect(servers, **options)


def _in_context_of(app: Flask) -> Callable[[Msg, Callable[[Msg], object]], None]:
    def in_context(msg: Msg, call: Callable[[Msg], object]) -> None:
        with app.app_context():
            call(msg)

    return in_context


def _worker_command(client: LazyClient, handlers: Handlers) -> click.Command:
    @click.command("nats-worker", help="Run the handlers of NATS messages until SIGTERM or Ctrl-C.")
    def nats_worker() -> None:
        try:
            run_worker(client.connect(), handlers, click.echo)
        except NatsError as error:
            click.echo(f"nats-worker: {error}", err=True)
            sys.exit(1)

    return nats_worker
