"""natsync: the NATS client for synchronous Python.

::

    import natsync

    with natsync.connect("nats://127.0.0.1:4222") as nc:
        sub = nc.subscribe("greet.*", cb=lambda msg: msg.respond(b"hello"))
        print(nc.request("greet.joe", timeout=1.0).data)

Importing this package starts no thread and opens no socket.
"""

import logging

from natsync import errors, events
from natsync._version import __version__
from natsync.client import Client, connect
from natsync.core.message import Msg
from natsync.core.subscription import Subscription
from natsync.errors import *  # noqa: F403
from natsync.headers import Headers
from natsync.policy.stats import Stats
from natsync.policy.status import Status
from natsync.protocol.info import ServerInfo

__all__ = [
    "Client",
    "Headers",
    "Msg",
    "ServerInfo",
    "Stats",
    "Status",
    "Subscription",
    "__version__",
    "connect",
    "errors",
    "events",
]
__all__ += errors.__all__

logging.getLogger("natsync").addHandler(logging.NullHandler())
