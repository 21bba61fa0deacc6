"""System checks: a bad setting is found by `manage.py check`, `runserver` and `test`, not by the first visitor."""

from __future__ import annotations

from typing import Any

from django.core import checks

from natsync.contrib.django.connection import read_settings
from natsync.errors import ConfigError

__all__ = ["check_settings"]


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """Check `NATS`; opens nothing."""
    try:
        read_settings()
    except ConfigError as error:
        hint = "The options of natsync.connect() are the keys of settings.NATS, in any case; see the page of options."
        return [checks.Error(str(error), hint=hint, obj="settings.NATS", id="natsync.E001")]
    return []
