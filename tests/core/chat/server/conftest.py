"""Servers in a thread of the test, on a scripted service."""

import threading
from contextlib import contextmanager

import httpx
import openai
import pytest

from llf_core.chat.server.app import Server
from llf_core.chat.server.guard import Access
from llf_core.chat.server.listen import make_server, open_socket
from tests.core.chat.server.scripted_service import ScriptedService

KEY = "a-key-of-the-test-1"


class Running:
    """A server that runs, with clients."""

    def __init__(self, service, access, grace_seconds, limits, body_seconds):
        self.service = service
        self.server = Server(service, access, body_seconds=body_seconds)
        listener = open_socket("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        ready = threading.Event()
        self._uvicorn = make_server(self.server, grace_seconds=grace_seconds, started=ready.set, **limits)
        self._thread = threading.Thread(target=self._uvicorn.run, args=([listener],))
        self._thread.start()
        assert ready.wait(120)
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=120)
        self.openai = openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=120)

    def begin_stop(self):
        self._uvicorn.should_exit = True

    def stop(self):
        self.begin_stop()
        self._thread.join(120)
        assert not self._thread.is_alive()
        self.openai.close()
        self.http.close()

    def chat(self, **fields):
        """The answer to a request to `/v1/chat/completions`."""
        body = {"model": "base", "messages": [{"role": "user", "content": "Hello"}]} | fields
        return self.http.post("/v1/chat/completions", json=body)

    def metric(self, line):
        """The number behind the beginning of a line of the metrics."""
        for one in self.http.get("/metrics").text.splitlines():
            if one.startswith(line):
                return float(one.rpartition(" ")[2])
        return 0.0


@contextmanager
def running(service=None, access=None, grace_seconds=1, body_seconds=60.0, **limits):
    server = Running(
        service or ScriptedService(), access or Access("127.0.0.1", keys=(KEY,)), grace_seconds, limits, body_seconds
    )
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def served():
    """A server for the tests of a file; each of them sets what its service answers."""
    with running() as server:
        yield server


@pytest.fixture
def serve():
    return running
