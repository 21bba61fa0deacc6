"""Where the views are."""

from django.urls import path

from natsync.contrib.django.views import health
from orders import views

urlpatterns = [
    path("orders", views.orders),
    path("orders/<int:number>", views.order),
    path("ready", health),
]
