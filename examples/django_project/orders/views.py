"""A view that publishes, and one that shows what the worker has done."""

from functools import partial

from django.db import transaction
from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from natsync.contrib.django import client
from orders.models import Order


@csrf_exempt
@require_POST
@transaction.atomic
def orders(request):
    """Store an order, and announce it as soon as others can see it in the database."""
    order = Order.objects.create(item=request.body.decode())
    transaction.on_commit(partial(client.publish, "orders.new", str(order.pk).encode()))
    return JsonResponse({"order": order.pk}, status=202)


def order(_request, number):
    """Show an order."""
    order = get_object_or_404(Order, pk=number)
    return JsonResponse({"order": order.pk, "item": order.item, "packed": order.packed})
