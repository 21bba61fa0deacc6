"""The front of the tasks: starts one, and waits for its news."""

import os

from flask import Flask, jsonify, request

import tasks
from natsync import NatsTimeoutError
from natsync.contrib.flask import Nats

app = Flask(__name__)
app.config["NATS_URL"] = os.environ.get("NATS_URL")
app.config["NATS_NAME"] = "web"
nats = Nats(app)


@app.post("/sums")
def sums():
    """Have the numbers of the body added up by Celery, and answer with what came over NATS."""
    numbers = [int(word) for word in request.get_data(as_text=True).split()]
    inbox = nats.new_inbox()
    with nats.subscribe(inbox) as news:
        nats.flush()  # the server knows that we listen before the task can start
        tasks.add_up.delay(numbers, inbox)
        try:
            messages = [news.next_msg(timeout=20.0) for _ in numbers]
        except NatsTimeoutError:
            return jsonify(error="the task has not come to its end in time"), 504
    return jsonify(sums=[int(msg.data) for msg in messages], process=messages[-1].headers["Process"])
