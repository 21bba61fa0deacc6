"""Ask many services from one thread, and wait for all of them.

python examples/fan_out.py [URL]       without a URL it starts a server of its own
"""

import sys
from concurrent.futures import as_completed

import natsync
from natsync.testing import NatsServer

SHOPS = ["anna", "ben", "cleo", "dora"]


def main(url: str) -> None:
    with natsync.connect(url, name="requests") as nc:
        open_shops(nc)
        # All requests are on their way before the first answer is waited for.
        futures = {nc.request_future(f"examples.price.{shop}", b"apples", timeout=0.5): shop for shop in SHOPS}
        for future in as_completed(futures):
            shop = futures[future]
            try:
                print(shop, "wants", future.result().data.decode())
            except natsync.NoRespondersError:
                print(shop, "is closed")
            except natsync.NatsTimeoutError:
                print(shop, "does not answer")
    print("the end")


def open_shops(nc: natsync.Client) -> None:
    """Stand in for services that would be other programs on other machines."""
    nc.subscribe("examples.price.anna", cb=lambda msg: msg.respond(b"3"))
    nc.subscribe("examples.price.ben", cb=lambda msg: msg.respond(b"4"))
    nc.subscribe("examples.price.cleo")  # listens, and does not answer


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with NatsServer() as server:
            main(server.url)
