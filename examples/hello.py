"""Publish, subscribe, ask: the first steps.

python examples/hello.py [URL]      without a URL it starts a server of its own
"""

import sys

import natsync
from natsync.testing import NatsServer


def main(url: str) -> None:
    with natsync.connect(url, name="hello") as nc:
        # A callback runs on a thread of the client.
        nc.subscribe("greet.*", cb=lambda msg: msg.respond(b"hello " + msg.data))
        print(nc.request("greet.joe", b"Joe", timeout=1.0).data)

        # A subscription without a callback is read.
        with nc.subscribe("news", max_msgs=2) as sub:
            nc.publish("news", b"it rains", headers={"Language": "en"})
            nc.publish("news", b"il pleut", headers={"Language": "fr"})
            for msg in sub:
                print(msg.headers["Language"], msg.data)

        try:
            nc.request("nobody.home", timeout=1.0)
        except natsync.NoRespondersError as error:
            print(error)
    print("the end")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with NatsServer() as server:
            main(server.url)
