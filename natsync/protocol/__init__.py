"""The NATS client protocol without any I/O: bytes in, operations out; values in, bytes out.

Floor 1: imports only floor 0. Nothing in here knows a socket, a thread, a lock, TLS or the time, so every rule of the
wire can be tested with plain bytes. `parser` and `operations` read what a server says, `commands` writes what we say,
`header_block`, `info` and `server_errors` read the parts that have a form of their own, and `handshake` says who
speaks when.
"""
