"""OpenTelemetry: a trace goes on in whoever receives a message.

::

    nc = natsync.connect("nats://127.0.0.1:4222")
    instrument(nc)

Needs `opentelemetry-api`, the extra `natsync[otel]`. Names and attributes are those of OpenTelemetry's conventions for
messaging. Knows the hooks of a client, and nothing else of it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanKind

import natsync
from natsync import Headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.trace import Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from natsync.contrib.lazy_client import LazyClient

__all__ = ["instrument", "process"]


def instrument(client: natsync.Client | LazyClient, *, tracer_provider: TracerProvider | None = None) -> None:
    """Have a client's messages carry the present trace, and its callbacks run in a span of that trace.

    What is published, asked or responded gets the headers that the global propagator writes (`traceparent`, `baggage`),
    when there is a trace. Every callback that is subscribed from now on runs in a span as `process` makes it. Call it
    once for each client, before subscribing; it does not block.

    Args:
        client: A client, or the one that Flask or Django has for each process.
        tracer_provider: Where spans go; None for the global one.
    """

    def wrap(msg: natsync.Msg, call: Callable[[natsync.Msg], object]) -> None:
        with process(msg, tracer_provider=tracer_provider):
            call(msg)

    client.with_publish(_inject)
    client.with_handler(wrap)


@contextlib.contextmanager
def process(msg: natsync.Msg, *, tracer_provider: TracerProvider | None = None) -> Iterator[Span]:
    """Run a block in a span for a received message: for loops over a subscription, and for `next_msg`.

    The span belongs to the trace in the message's headers, or begins a trace when there is none. An exception is
    recorded in it, and goes on.

    Args:
        msg: The message.
        tracer_provider: Where the span goes; None for the global one.
    """
    tracer = trace.get_tracer("natsync", natsync.__version__, tracer_provider)
    # An empty context to begin with: the trace in which the program subscribed is not the message's.
    origin = propagate.extract(msg.headers, Context(), _getter)
    token = context.attach(origin)
    try:
        with tracer.start_as_current_span(
            f"process {_pattern(msg)}", kind=SpanKind.CONSUMER, attributes=_attributes(msg)
        ) as span:
            yield span
    finally:
        context.detach(token)


def _inject(msg: natsync.Msg) -> None:
    headers = Headers() if msg.headers is None else msg.headers
    propagate.inject(headers)
    if len(headers):
        msg.headers = headers


def _pattern(msg: natsync.Msg) -> str:
    """What names a span: the subject of the subscription, as there are few of them."""
    return msg.subscription.subject if msg.subscription is not None else msg.subject


def _attributes(msg: natsync.Msg) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "messaging.system": "nats",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": msg.subject,
        "messaging.message.body.size": len(msg.data),
    }
    if _pattern(msg) != msg.subject:
        attributes["messaging.destination.template"] = _pattern(msg)
    if msg.subscription is not None and msg.subscription.queue is not None:
        attributes["messaging.consumer.group.name"] = msg.subscription.queue
    return attributes


class _AnyCase(Getter["Headers | None"]):
    """Reads headers whose names are in any case: clients in Go write `Traceparent`."""

    def get(self, carrier: Headers | None, key: str) -> list[str] | None:
        values = [value for name, value in _pairs(carrier) if name.lower() == key.lower()]
        return values or None

    def keys(self, carrier: Headers | None) -> list[str]:
        return [name for name, _ in _pairs(carrier)]


def _pairs(headers: Headers | None) -> list[tuple[str, str]]:
    return [] if headers is None else list(headers.items())


_getter = _AnyCase()
