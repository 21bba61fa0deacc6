"""python manage.py test"""

from django.test import TestCase, TransactionTestCase

from natsync import Msg
from natsync.contrib.django import client as nats
from natsync.contrib.django.test import NatsTestMixin
from orders.models import Order
from orders.nats_handlers import pack


class OrderTests(NatsTestMixin, TestCase):
    def test_a_handler_is_a_function(self):
        order = Order.objects.create(item="pizza")
        pack(Msg("orders.new", str(order.pk).encode()))
        order.refresh_from_db()
        self.assertTrue(order.packed)

    def test_an_order_is_announced(self):
        with nats.subscribe("orders.new") as sub:
            with self.captureOnCommitCallbacks(execute=True):
                answer = self.client.post("/orders", "pizza", content_type="text/plain")
            self.assertEqual(sub.next_msg(timeout=5.0).data.decode(), str(answer.json()["order"]))


class WorkerTests(NatsTestMixin, TransactionTestCase):
    def test_an_order_is_packed(self):
        with self.nats_handlers():
            answer = self.client.post("/orders", "pizza", content_type="text/plain")
        self.assertTrue(Order.objects.get(pk=answer.json()["order"]).packed)
