"""A served playground of the demo model."""

import json
import threading
import time
import urllib.error
import urllib.request

import pytest

from metake.models.load import load
from metake.playground.session import Session


class Served:
    """A session of the demo model and its server on a free port of this machine."""

    def __init__(self):
        from metake.playground.server import application, bound_socket, web_server

        self.session = Session(load("demo", device="cpu"))
        self.server = web_server(application(self.session))
        at = bound_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{at.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [at]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.05)

    def post(self, name, content, **headers):
        """Status and text of the response to a POST request."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        request = urllib.request.Request(
            f"{self.url}/api/{name}", body, {"Content-Type": "application/json", **headers}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def close(self):
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(scope="session")
def served():
    pytest.importorskip("uvicorn", reason="the extra playground is not installed")
    made = Served()
    yield made
    made.close()
