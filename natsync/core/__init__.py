"""Floor 3: threads and sockets. `docs/design.rst` says which thread and which lock owns what."""
