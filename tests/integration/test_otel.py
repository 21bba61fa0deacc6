"""OpenTelemetry with its own SDK: traces that go on over messages, and spans around callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags

from natsync import Headers, Msg
from natsync.contrib.otel import instrument, process
from tests.support.waiting import Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span, Tracer

    from natsync import Client
    from natsync.testing import NatsServer

    Connect = Callable[..., Client]

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Telemetry:
    """A provider of the test's own, and what it has recorded."""

    def __init__(self, **options: Any) -> None:
        self.provider = TracerProvider(**options)
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = self.provider.get_tracer("test")

    def spans(self, n: int) -> list[ReadableSpan]:
        """Wait for the n-th span, and return all, in the order of their ends."""
        eventually(lambda: len(self._exporter.get_finished_spans()) >= n)
        return list(self._exporter.get_finished_spans())


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def clients(connect: Connect, nats_server: NatsServer, telemetry: Telemetry) -> tuple[Client, Client]:
    """Two programs with telemetry."""
    pair = connect(nats_server.url), connect(nats_server.url)
    for client in pair:
        instrument(client, tracer_provider=telemetry.provider)
    return pair


def ids(span: ReadableSpan | Span) -> tuple[str, str]:
    """The ids of a span's trace and of itself, as they stand in headers."""
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def parent_of(span: ReadableSpan) -> tuple[str, str]:
    assert span.parent is not None
    return f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}"


def trace_of(span: ReadableSpan | Span) -> str:
    return ids(span)[0]


def test_a_trace_goes_on_in_the_callback(clients: tuple[Client, Client], telemetry: Telemetry) -> None:
    here, there = clients
    there.subscribe("otel.*", queue="workers", cb=Recorder())
    there.flush()
    with telemetry.tracer.start_as_current_span("buy") as buy:
        here.publish("otel.order", b"pizza", headers={"Table": "7"})
        (span,) = telemetry.spans(1)
    assert span.name == "process otel.*"
    assert span.kind is SpanKind.CONSUMER
    assert parent_of(span) == ids(buy)
    assert trace_of(span) == trace_of(buy)
    assert dict(span.attributes or {}) == {
        "messaging.system": "nats",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "otel.order",
        "messaging.destination.template": "otel.*",
        "messaging.consumer.group.name": "workers",
        "messaging.message.body.size": 5,
    }
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "natsync"


def test_the_headers_of_a_message(clients: tuple[Client, Client], telemetry: Telemetry) -> None:
    here, there = clients
    subscription = there.subscribe("otel.headers")
    there.flush()
    mine = Headers({"Table": "7"})
    with telemetry.tracer.start_as_current_span("buy"):
        here.publish("otel.headers", headers=mine)
        here.publish_msg(Msg("otel.headers"))
    here.publish("otel.headers")
    here.publish("otel.headers", headers={"traceparent": PARENT})
    named, bare, outside, forwarded = (subscription.next_msg(timeout=5).headers for _ in range(4))
    assert named is not None
    assert list(named) == ["Table", "traceparent"]
    assert list(mine) == ["Table"]
    assert bare is not None
    assert list(bare) == ["traceparent"]
    assert outside is None
    assert forwarded == Headers({"traceparent": PARENT})


def test_there_and_back(clients: tuple[Client, Client], telemetry: Telemetry) -> None:
    here, there = clients

    def answer(msg: Msg) -> None:
        with telemetry.tracer.start_as_current_span("cook"):
            msg.respond(here.request("otel.inner", timeout=5).data)

    there.subscribe("otel.outer", cb=answer)
    there.subscribe("otel.inner", cb=lambda msg: msg.respond(b"pizza"))
    there.flush()
    with telemetry.tracer.start_as_current_span("buy"):
        reply = here.request("otel.outer", timeout=5)
        spans = telemetry.spans(3)
    assert [span.name for span in spans] == ["process otel.inner", "cook", "process otel.outer"]
    inner, cook, _ = spans
    assert parent_of(inner) == ids(cook)
    assert len({trace_of(span) for span in spans}) == 1
    assert reply.headers is not None
    assert "-".join(ids(cook)) in reply.headers["traceparent"]


def test_the_trace_of_the_subscriber_is_not_that_of_the_message(
    clients: tuple[Client, Client], telemetry: Telemetry
) -> None:
    here, there = clients
    with telemetry.tracer.start_as_current_span("start"):
        there.subscribe("otel.own", cb=Recorder())
        there.flush()
    here.publish("otel.own")
    start, span = telemetry.spans(2)
    assert span.parent is None
    assert trace_of(span) != trace_of(start)


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT"])
def test_other_clients_write_names_in_their_own_case(
    clients: tuple[Client, Client], telemetry: Telemetry, name: str
) -> None:
    here, there = clients
    there.subscribe("otel.case", cb=Recorder())
    there.flush()
    here.publish("otel.case", headers={name: PARENT})
    (span,) = telemetry.spans(1)
    assert trace_of(span) == TRACE


def test_baggage_travels(clients: tuple[Client, Client]) -> None:
    here, there = clients
    seen = Recorder()
    there.subscribe("otel.baggage", cb=lambda msg: seen(baggage.get_baggage("tenant")))
    there.flush()
    token = context.attach(baggage.set_baggage("tenant", "grüne Küche"))
    try:
        here.publish("otel.baggage")
    finally:
        context.detach(token)
    here.publish("otel.baggage")
    assert seen.wait_for(2) == ["grüne Küche", None]


def test_a_callback_that_raises(clients: tuple[Client, Client], telemetry: Telemetry) -> None:
    here, there = clients
    there.subscribe("otel.crash", cb=lambda msg: 1 // 0)
    there.flush()
    here.publish("otel.crash")
    (span,) = telemetry.spans(1)
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]
    eventually(lambda: isinstance(there.last_error, ZeroDivisionError))


def test_a_loop_over_a_subscription(clients: tuple[Client, Client], telemetry: Telemetry) -> None:
    here, there = clients
    subscription = there.subscribe("otel.read", max_msgs=2)
    there.flush()
    with telemetry.tracer.start_as_current_span("buy") as buy:
        here.publish("otel.read")
        here.publish("otel.read")
    for msg in subscription:
        with process(msg, tracer_provider=telemetry.provider) as span:
            span.set_attribute("mine", True)
    _, *spans = telemetry.spans(3)
    assert [span.name for span in spans] == ["process otel.read"] * 2
    assert {trace_of(span) for span in spans} == {trace_of(buy)}
    assert all((span.attributes or {})["mine"] for span in spans)


def test_a_message_that_was_not_received(telemetry: Telemetry) -> None:
    with process(Msg("otel.made", headers={"traceparent": PARENT}), tracer_provider=telemetry.provider):
        pass
    (span,) = telemetry.spans(1)
    assert (span.name, trace_of(span)) == ("process otel.made", TRACE)


def test_what_is_not_sampled_is_not_recorded_and_passed_on_as_such(connect: Connect, nats_server: NatsServer) -> None:
    off = Telemetry(sampler=ALWAYS_OFF)
    client = connect(nats_server.url)
    instrument(client, tracer_provider=off.provider)
    seen = Recorder()
    client.subscribe("otel.off", cb=seen)
    with off.tracer.start_as_current_span("buy"):
        client.publish("otel.off")
    (msg,) = seen.wait_for(1)
    flags = int(msg.headers["traceparent"].rpartition("-")[2], 16)
    assert flags & TraceFlags.SAMPLED == 0
    assert off.spans(0) == []
