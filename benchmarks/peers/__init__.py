"""The contenders, each a process of its own in a virtual environment of its own, and the raw sockets that feed them.

These files are run by interpreters that have the standard library and one client, so they import nothing of natsync
(but for natsync's own contender) and nothing of the harness.
"""
