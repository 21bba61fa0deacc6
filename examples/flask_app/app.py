"""A shop in Flask: a view that publishes, a view that asks, and a worker that packs."""

import os

from flask import Flask, jsonify, request

from natsync import NatsTimeoutError, NoRespondersError
from natsync.contrib.flask import Nats

app = Flask(__name__)
app.config["NATS_URL"] = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
app.config["NATS_NAME"] = "shop"
app.config["NATS_REQUEST_TIMEOUT"] = 2.0
app.logger.setLevel("INFO")
nats = Nats(app)

app.add_url_rule("/ready", view_func=nats.health)


@app.post("/orders")
def order():
    """Announce an order, and answer at once: workers do the rest."""
    nats.publish("orders.new", request.get_data())
    return jsonify(accepted=True), 202


@app.get("/prices/<item>")
def price(item):
    """Ask a worker, and wait for its answer."""
    try:
        return jsonify(item=item, price=nats.request("prices.get", item.encode()).data.decode())
    except NoRespondersError:
        return jsonify(error="no worker is running"), 503
    except NatsTimeoutError:
        return jsonify(error="the workers are too busy"), 504


@nats.handler("prices.get", queue="workers")
def get_price(msg):
    """Answer price()."""
    msg.respond(f"{len(msg.data)}.00 EUR".encode())


@nats.handler("orders.new", queue="workers")
def pack(msg):
    """Do the work of an order, and tell whoever wants to know."""
    app.logger.info("packing %s", msg.data.decode())
    nats.publish("orders.packed", msg.data)
