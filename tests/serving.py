"""A server in this process, asked over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
import uvicorn

from segreg.config.sections import Input
from segreg.inference.predictor import Predictor
from segreg.runtime.device import Precision
from segreg.serve.app import ServedModel, create_app
from segreg.serve.limits import Limits


class Network(torch.nn.Module):
    """One logit a class from the mean of an image's channels; it notes its batches, and waits while it is held."""

    def __init__(self, classes):
        super().__init__()
        self.batches = []
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Semaphore(0)
        self.register_buffer("slopes", torch.linspace(1, -1, classes + 1)[:classes, None, None] * 8)

    def forget(self):
        """Forget the trial prediction."""
        self.batches.clear()
        self.reached = threading.Semaphore(0)

    def forward(self, images):
        self.batches.append(tuple(images.shape))
        self.reached.release()
        assert self.free.wait(60)
        return (images.mean(dim=1, keepdim=True) - 0.5) * self.slopes


class Scaled(torch.nn.Module):
    def forward(self, images):
        return images.float() / 255


def predictor(task, *, name="a/model", threshold=0.5, **given):
    """Return a network of these classes that sees images at their own size."""
    section = Input(**{"size": (24, 32), "resize": "crop", **given})
    precision = Precision("float32", None, scaler=False, reason="test")
    device = torch.device("cpu")
    return Predictor(name, Network(task.channels).eval(), Scaled(), section, task, threshold, device, precision)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The reason, one line, of a refusal."""
        assert set(self.json) == {"error"}
        assert "\n" not in self.json["error"]
        return self.json["error"]


@dataclass(frozen=True)
class Client:
    port: int

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method, path, body=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers)
            return self.answer(connection)

    def until(self, path, text):
        """Wait until what a path answers contains a string; for a minute at most."""
        end = time.monotonic() + 60
        while text not in (found := self.ask("GET", path).body):
            assert time.monotonic() < end, found
            time.sleep(0.01)

    @staticmethod
    def answer(connection):
        found = connection.getresponse()
        return Answer(found.status, found.headers, found.read())

    def predict(self, body, query="", **headers):
        return self.ask("POST", f"/predict?{query}", body, **headers)


@contextlib.contextmanager
def serving(*predictors, token=None, notice="", ready=True, **limits):
    """Return a client of a server, which is `ready` unless its networks are held."""
    models = {one.name: ServedModel(one, notice) for one in predictors}
    app = create_app(models, replace(Limits(), **limits), token)
    networks = [one.model for one in predictors if isinstance(one.model, Network)]
    # Without its configuration of logging, which closes the handlers of all libraries, and with some their streams.
    config = uvicorn.Config(app, port=0, log_config=None, log_level="critical", timeout_graceful_shutdown=20)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        client = Client(server.servers[0].sockets[0].getsockname()[1])
        if ready and all(network.free.is_set() for network in networks):
            client.until("/readyz", b"ok")
            for network in networks:
                network.forget()
        yield client
    finally:
        for network in networks:
            network.free.set()
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
