"""A reward endpoint on this machine."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer


class Endpoint:
    """Answers LLaMA-Factory's protocol by a function of each text; `asked` and `headers` keep what it was sent."""

    def __init__(self, score):
        self.asked = []
        self.status = 200
        self.body = None
        self.headers = []
        self.more = {}
        self.pieces, self.pause = 0, 0.0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.asked.append(sent)
                endpoint.headers.append(dict(self.headers))
                body = endpoint.body or json.dumps({"scores": [score(text) for text in sent["messages"]]})
                self.send_response(endpoint.status)
                for name, value in endpoint.more.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(OSError):  # who asked has gone
                    for _ in range(endpoint.pieces):
                        self.wfile.write(b" ")
                        time.sleep(endpoint.pause)
                    self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/score"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
