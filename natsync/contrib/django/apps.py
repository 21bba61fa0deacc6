"""The Django app: it has no models, but system checks and a management command."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from natsync.contrib.django.checks import check_settings

__all__ = ["NatsConfig"]


class NatsConfig(AppConfig):
    """Registers the checks."""

    name = "natsync.contrib.django"
    label = "natsync"
    verbose_name = "NATS"

    def ready(self) -> None:
        """Run once all apps are loaded."""
        checks.register(check_settings, "natsync")
