"""Start it all: a NATS server, a Celery worker with two processes, and the web server on port 8000.

python examples/celery_app/run.py [PORT]        needs: pip install "natsync[flask,server]" celery gunicorn

    curl -d "1 2 3" http://127.0.0.1:8000/sums

The broker is a folder, so that nothing else has to be installed. Ctrl-C ends it.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from natsync.testing import NatsServer

FOLDER = Path(__file__).parent


def main(port: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    python = [sys.executable, "-m"]
    with NatsServer() as server, tempfile.TemporaryDirectory() as broker:
        environment = {**os.environ, "NATS_URL": server.url, "CELERY_FOLDER": broker}
        commands = [
            [*python, "celery", "--app", "tasks", "worker", "--concurrency", "2", "--loglevel", "INFO"],
            [*python, "gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{port}", "web:app"],
        ]
        # In sessions of their own, so that Ctrl-C is for this program, which ends them in good order.
        processes = [
            subprocess.Popen(command, cwd=FOLDER, env=environment, start_new_session=True) for command in commands
        ]
        try:
            processes[-1].wait()
        except KeyboardInterrupt:
            pass
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "8000")
