"""Views: the answer to a load balancer."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse

from natsync.contrib.django.connection import client

__all__ = ["health"]


def health(_request: HttpRequest) -> JsonResponse:
    """Say whether NATS can be used: 200, or 503; see `LazyClient.health`. Blocks for at most a second once connected.

    ::

        path("ready", natsync.contrib.django.views.health)
    """
    body, status = client.health()
    return JsonResponse(body, status=status)
