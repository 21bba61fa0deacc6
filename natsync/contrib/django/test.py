"""For tests of Django projects: a server of the test class's own, and the handlers at work in the test's process."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from django.test import override_settings

from natsync.contrib.django.connection import client, find_handlers
from natsync.contrib.handlers import Handler
from natsync.testing import NatsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Msg

__all__ = ["NatsTestMixin"]


class NatsTestMixin:
    """Mixed into a test case of Django's, before it, gives the class a real server, and the client connects to it.

    ::

        class OrderTests(NatsTestMixin, TestCase):
            def test_an_order_is_announced(self):
                with nats.subscribe("orders.new") as sub:
                    self.client.post("/orders", {"item": "pizza"})
                    self.assertEqual(sub.next_msg(timeout=1).data, b"pizza")

    Needs the extra `natsync[server]`, or another `nats-server`.

    Attributes:
        nats_settings: What else `settings.NATS` has during the tests; the project's own is not used.
        nats_server: The server, a `natsync.testing.NatsServer`, from `setUpClass` on.
    """

    nats_settings: dict[str, Any] = {}  # noqa: RUF012 - replaced by subclasses, never changed
    nats_server: NatsServer

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server first, so that `setUpTestData` can use it."""
        cls.nats_server = NatsServer()
        cls.addClassCleanup(cls.nats_server.close)  # type: ignore[attr-defined]
        cls.nats_server.start()
        override = override_settings(NATS={**cls.nats_settings, "SERVERS": cls.nats_server.url})
        override.enable()
        cls.addClassCleanup(override.disable)  # type: ignore[attr-defined]
        super().setUpClass()  # type: ignore[misc]

    @contextlib.contextmanager
    def nats_handlers(self) -> Iterator[None]:
        """Run the project's handlers during the block; its end waits until they have handled what was published.

        They run on threads of their own, and so with database connections of their own, which see nothing of the
        transaction that a `TestCase` is in: use it in a `TransactionTestCase`. In a `TestCase` call the function.

        Raises:
            Exception: At the end of the block, the first that a handler raised.
        """
        errors: list[Exception] = []
        subscriptions = [_watched(handler, errors).subscribe(client) for handler in find_handlers()]
        try:
            client.flush()
            yield
            client.flush()
        finally:
            for subscription in subscriptions:
                subscription.drain()
        if errors:
            raise errors[0]


def _watched(handler: Handler, errors: list[Exception]) -> Handler:
    def watched(msg: Msg) -> None:
        try:
            handler.function(msg)
        except Exception as error:
            errors.append(error)

    function: Callable[[Msg], object] = watched
    return Handler(function, handler.subject, handler.options)
