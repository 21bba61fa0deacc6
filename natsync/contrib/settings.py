"""From a framework's settings to the arguments of `natsync.connect`; errors name the key that the user wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from natsync.errors import ConfigError
from natsync.policy.options import make_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["connect_arguments"]


def connect_arguments(settings: Mapping[str, Any], spelled: Callable[[str], str]) -> tuple[Any, dict[str, Any]]:
    """Check settings, and return the servers and the options for `natsync.connect`; no I/O.

    Args:
        settings: The options by their names, and "url" or "servers".
        spelled: Makes of such a name the key under which the user finds it in the settings.

    Raises:
        ConfigError: A setting is unknown, ill-typed or contradicts another; its text and its `option` name the key.
    """
    options = dict(settings)
    if "url" in options and "servers" in options:
        both = f"{spelled('url')} and {spelled('servers')} mean the same; give one of them"
        raise ConfigError(both, option=spelled("servers"))
    key = "url" if "url" in options else "servers"
    servers = options.pop(key, None)
    try:
        make_options(servers, options)
    except ConfigError as error:
        name = spelled(error.option if error.option in options else key)
        raise ConfigError(f"{name}: {error}", option=name) from error
    return servers, options
