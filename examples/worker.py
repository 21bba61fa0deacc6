"""A worker of a queue group that ends without losing a job, also when SIGTERM or Ctrl-C tells it to.

python examples/worker.py [URL [SECONDS]]       without a URL it starts a server of its own

Start several with one URL: each job goes to one of them. Without SECONDS it works for one second.
"""

import signal
import sys
import time

import natsync
from natsync.testing import NatsServer


def work(msg: natsync.Msg) -> None:
    """Do a job, slowly, and send its result to whoever asked."""
    time.sleep(0.05)
    number = int(msg.data)
    print(f"job {number} is done", flush=True)
    if msg.reply:
        msg.respond(str(number * number).encode())


def main(url: str, seconds: float) -> None:
    # SIGTERM (docker stop, systemd) raises KeyboardInterrupt in the main thread, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    nc = natsync.connect(
        url,
        name="worker",
        disconnected_cb=lambda event: print("lost:", event.error, flush=True) if event.error else None,
        reconnected_cb=lambda event: print("back on", event.server, flush=True),
        error_cb=lambda event: print("error:", event.error, flush=True),
    )
    try:
        nc.subscribe("examples.jobs", queue="workers", cb=work)
        nc.flush()
        print("ready", flush=True)
        for number in range(5):
            nc.publish("examples.jobs", str(number).encode())
        if nc.wait_closed(timeout=seconds):
            raise SystemExit(f"the client is closed: {nc.last_error}")
    except KeyboardInterrupt:
        print("told to end", flush=True)
    nc.drain()  # takes no new jobs, and finishes those that are there
    print("the end", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
    else:
        with NatsServer() as server:
            main(server.url, 1.0)
