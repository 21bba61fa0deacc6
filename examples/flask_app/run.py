"""Start it all: a NATS server, a worker, and the web server on port 8000.

python examples/flask_app/run.py [PORT]     needs: pip install "natsync[flask,server]" gunicorn

    curl -d pizza http://127.0.0.1:8000/orders
    curl http://127.0.0.1:8000/prices/pizza
    curl http://127.0.0.1:8000/ready

Ctrl-C ends it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from natsync.testing import NatsServer

FOLDER = Path(__file__).parent


def main(port: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    python = [sys.executable, "-m"]
    with NatsServer() as server:
        environment = {**os.environ, "NATS_URL": server.url}
        commands = [
            [*python, "flask", "--app", "app", "nats-worker"],
            [*python, "gunicorn", "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}", "app:app"],
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
            for process in reversed(processes):  # first no new orders, then the worker finishes those that are there
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "8000")
