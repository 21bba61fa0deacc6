"""What the cells share: one cluster, and an interpreter that hurries from thread to thread."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from natsync.testing import NatsCluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def cluster() -> Iterator[NatsCluster]:
    """Three servers; a cell leaves all of them running and joined."""
    with NatsCluster(3) as servers:
        yield servers


@pytest.fixture(autouse=True)
def restless() -> Iterator[None]:
    """Have the interpreter change threads often, so that faults meet threads in the middle of a step."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)
