"""Handlers that are declared where they are written, and subscribed when a worker runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Client, Msg, Subscription

    F = TypeVar("F", bound=Callable[[Msg], object])

__all__ = ["Handler", "Handlers"]


@dataclasses.dataclass(frozen=True)
class Handler:
    """A function, and what to subscribe it to."""

    function: Callable[[Msg], object]
    subject: str
    options: dict[str, Any]

    def __str__(self) -> str:
        queue = self.options.get("queue")
        name = f"{self.function.__module__}.{getattr(self.function, '__qualname__', self.function)}"
        return f"{self.subject}{f' (queue {queue})' if queue else ''}: {name}"

    def subscribe(self, client: Client) -> Subscription:
        """Subscribe; raises and blocks as `Client.subscribe`."""
        return client.subscribe(self.subject, cb=self.function, **self.options)


class Handlers:
    """The handlers of an application, in the order in which they were declared."""

    def __init__(self) -> None:
        self._handlers: list[Handler] = []

    def __iter__(self) -> Iterator[Handler]:
        return iter(tuple(self._handlers))

    def declare(self, subject: str, *, queue: str | None = None, **options: Any) -> Callable[[F], F]:
        """Return a decorator that declares a function and gives it back as it was, so it can be called in tests.

        Args:
            subject: What to subscribe to.
            queue: The queue group: each message goes to one of all workers. None: every worker gets every message.
            **options: Others of `Client.subscribe`: `workers`, `pending_msgs_limit`, `pending_bytes_limit`.
        """

        def declare(function: F) -> F:
            self._handlers.append(Handler(function, subject, {"queue": queue, **options}))
            return function

        return declare
