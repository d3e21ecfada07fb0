"""Answers that do not come whole."""

import time
import urllib.error
from http.client import IncompleteRead
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from llf_core.untrusted.http_answer import ask, read_answer


class Short(BaseHTTPRequestHandler):
    """Says 100 bytes and closes after 10; `/whole` keeps its word."""

    def do_GET(self):
        self.send_response(503 if self.path == "/busy" else 200)
        self.send_header("Content-Length", "10" if self.path == "/whole" else "100")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    with HTTPServer(("127.0.0.1", 0), Short) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_half_an_answer_is_no_answer(address):
    assert ask(f"{address}/whole", None, {}, timeout=60) == b"0123456789"
    with pytest.raises(IncompleteRead, match="10 bytes read, 90 more expected"):
        ask(address, None, {}, timeout=60)
    with pytest.raises(urllib.error.HTTPError) as busy:
        ask(f"{address}/busy", None, {}, timeout=60)
    with busy.value as answer, pytest.raises(IncompleteRead):
        read_answer(answer, time.monotonic() + 60, 1000)
