"""Be somebody who may not read everything, although the tests run as root."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NOBODY = 65534


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Give up root's rights for a while, if we have them; POSIX only.

    Args:
        folder: The present directory, which stays accessible. Name files in it by relative paths: those above it belong
            to root.
    """
    if os.geteuid() != 0:
        yield
        return
    os.chown(folder, _NOBODY, -1)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
