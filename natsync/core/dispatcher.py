"""The workers that run message callbacks and the callbacks of futures.

Knows jobs as callables; knows nothing of messages. Jobs of one subscription are ordered by that subscription (it
submits the next turn when the last is over), not here.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from natsync.core.crash import log_crash
from natsync.core.threads import ClientThread

__all__ = ["Dispatcher"]

_log = logging.getLogger("natsync.dispatcher")


class Dispatcher:
    """A pool of threads that grows with the number of callback subscriptions, up to a limit.

    Growing at `subscribe()` instead of when work comes means that the reader never starts a thread.

    Args:
        owner: The engine.
        client: The client's name, for the threads'.
        most: `callback_workers`.
    """

    def __init__(self, owner: object, client: str, most: int) -> None:
        self._owner = owner
        self._client = client
        self._most = most
        self._lock = threading.Lock()
        self._threads: list[ClientThread] = []
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._has_futures = False
        self._stopped = False
        self._abandoned = False

    def add(self, workers: int) -> None:
        """Have so many workers more, or as many as are allowed."""
        with self._lock:
            added = self._add_locked(workers)
        self._start(added)

    def add_for_futures(self) -> None:
        """Have a worker for the callbacks of futures, beside those of subscriptions."""
        with self._lock:
            added = [] if self._has_futures else self._add_locked(1)
        self._start(added)
        self._has_futures = True

    def _add_locked(self, workers: int) -> list[ClientThread]:
        have = len(self._threads)
        last = have if self._stopped else min(have + workers, self._most)
        added = [ClientThread(self._owner, self._client, f"worker-{n}", self._work) for n in range(have + 1, last + 1)]
        self._threads += added
        return added

    def _start(self, added: list[ClientThread]) -> None:
        try:
            for thread in added:
                thread.start()
        except BaseException:
            with self._lock:
                self._threads = [thread for thread in self._threads if thread not in added or thread.ident is not None]
            raise

    def submit(self, job: Callable[[], None]) -> None:
        """Queue a job; never waits, from any thread."""
        self._jobs.put(job)

    def submit_if_open(self, job: Callable[[], None]) -> bool:
        """Queue a job, unless the workers have been told to end: then say False."""
        with self._lock:
            if not self._stopped:
                self._jobs.put(job)
            return not self._stopped

    @property
    def has_waiting(self) -> bool:
        """Whether jobs wait for a worker."""
        return not self._jobs.empty()

    def stop(self) -> None:
        """Let every worker end after the jobs that are queued now."""
        with self._lock:
            self._stopped = True
            for _ in self._threads:
                self._jobs.put(None)

    def abandon(self) -> None:
        """In a forked child: the worker that forked, if it was one, ends after its callback."""
        self._abandoned = True

    @property
    def threads(self) -> list[ClientThread]:
        return list(self._threads)

    def _work(self) -> None:
        while not self._abandoned:
            job = self._jobs.get()
            if job is None:
                return
            try:
                job()
            except BaseException:
                # A message callback is guarded where it is called; this is a future's, and must not cost a worker.
                log_crash(_log, "a callback of a future raised an exception")
            del job
