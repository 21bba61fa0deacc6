"""Start it all: a NATS server, two shops, and the script, which prints what they have taken.

python examples/script/run.py       needs: pip install "natsync[server]"
"""

import os
import subprocess
import sys
from pathlib import Path

import natsync
from natsync.testing import NatsServer

TAKINGS = {"Anna": 300, "Ben": 200}


def open_shop(nc, shop):
    """Answer whoever asks for the shop's takings."""
    answer = str(TAKINGS[shop]).encode()
    nc.subscribe("shops.takings", cb=lambda msg: msg.respond(answer, headers={"Shop": shop}))


def main() -> None:
    with NatsServer() as server, natsync.connect(server.url, name="shops") as nc:
        for shop in TAKINGS:
            open_shop(nc, shop)
        with nc.subscribe("reports.takings") as reports:
            nc.flush()
            script = [sys.executable, Path(__file__).with_name("report.py")]
            subprocess.run(script, env={**os.environ, "NATS_URL": server.url}, check=True)
            print("reported", reports.next_msg(timeout=5.0).data.decode(), flush=True)


if __name__ == "__main__":
    main()
