"""Real NATS servers for tests: one process, or a cluster, on free loopback ports.

Stands beside the client and knows nothing of it: only the standard library and `natsync.errors`. The servers are the
real `nats-server`, because a test against an imitation proves the imitation.
"""

from __future__ import annotations

from natsync.testing.cluster import NatsCluster
from natsync.testing.server import NatsServer

__all__ = ["NatsCluster", "NatsServer"]
