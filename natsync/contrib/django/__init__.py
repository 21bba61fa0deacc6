"""natsync in Django: one client a process, set by `NATS` in the settings, and handlers for `manage.py nats_worker`.

::

    # settings.py
    INSTALLED_APPS = [..., "natsync.contrib.django"]
    NATS = {"URL": "nats://127.0.0.1:4222", "NAME": "shop"}

    # views.py
    from natsync.contrib.django import client

    def order(request):
        client.publish("orders.new", request.body)
        return HttpResponse(status=202)

    # nats_handlers.py
    from natsync.contrib.django import handler

    @handler("orders.new", queue="workers")
    def pack(msg):
        Order.objects.create(text=msg.data.decode())
"""

from __future__ import annotations

from natsync.contrib.django.connection import client, handler

__all__ = ["client", "handler"]
