"""`python manage.py nats_worker`: handle messages until SIGTERM or Ctrl-C."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from natsync.contrib.django.connection import client, find_handlers
from natsync.contrib.django.reloader import run_with_reloader
from natsync.contrib.worker import run_worker
from natsync.errors import NatsError

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["Command"]


class Command(BaseCommand):
    """Runs the handlers that the modules `nats_handlers` of the installed apps declare."""

    help = "Run the handlers of NATS messages. SIGTERM and Ctrl-C let them finish what has arrived."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told_to_end = threading.Event()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--noreload",
            action="store_false",
            dest="use_reloader",
            help="Do not start again when code changes; it does only with DEBUG.",
        )

    def handle(self, *_args: Any, use_reloader: bool, **_options: Any) -> None:
        if settings.DEBUG and use_reloader:
            run_with_reloader(self._run_in_thread, self._end)
        else:
            try:
                self._run()
            except NatsError as error:
                raise CommandError(str(error)) from error

    def _run(self) -> None:
        run_worker(client.connect(), find_handlers(), self._say)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _end(self) -> None:
        self._told_to_end.set()
        try:
            client.drain()
        except NatsError as error:  # must not take the place of the SystemExit that stands for "start me again"
            self.stderr.write(f"nats_worker: {error}")

    def _run_in_thread(self) -> None:
        try:
            self._run()
        except NatsError as error:
            if not self._told_to_end.is_set():
                self.stderr.write(f"nats_worker: {error}")
                os._exit(1)  # as runserver does: sys.exit() ends this thread only
