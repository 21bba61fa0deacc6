"""What `manage.py nats_worker` does."""

import logging

from natsync.contrib.django import client, handler
from orders.models import Order

log = logging.getLogger(__name__)


@handler("orders.new", queue="workers")
def pack(msg):
    """Do the work of an order, and tell whoever wants to know."""
    order = Order.objects.get(pk=int(msg.data))
    log.info("packing %s", order.item)
    order.packed = True
    order.save()
    client.publish("orders.packed", msg.data)
