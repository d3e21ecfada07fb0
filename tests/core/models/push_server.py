"""A hub of one's own on the loopback device that huggingface_hub pushes to: the few routes of its client."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_" + "a" * 34


class PushedHub:
    """What was pushed: files of each repository by name, what was asked, and routes that answer with another status."""

    def __init__(self):
        self.repos, self.private, self.branches, self.asked, self.broken = {}, {}, [], [], {}


@contextmanager
def serve_pushes(hub):  # noqa: C901 - one branch a route
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, status, body):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self.answer(b"")

        def do_POST(self):
            size = int(self.headers.get("Content-Length") or 0)
            self.answer(self.rfile.read(size) if size else self.chunks())

        def chunks(self):
            body = b""
            if self.headers.get("Transfer-Encoding") != "chunked":
                return body
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def answer(self, body):  # noqa: PLR0911 - one answer a route
            path = self.path.partition("?")[0]
            hub.asked.append((self.command, path))
            broken = next((status for part, status in hub.broken.items() if part in path), None)
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.reply(401, {"error": "Invalid username or password."})
            if broken is not None:
                return self.reply(broken, {"error": "broken"})
            if path == "/api/whoami-v2":
                return self.reply(200, {"type": "user", "name": "ada", "orgs": [{"name": "lab"}], "auth": {}})
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'ada'}/{asked['name']}"
                hub.private[name] = asked.get("private", asked.get("visibility") == "private")
                hub.repos.setdefault(name, {})
                return self.reply(200, {"url": f"{address}/{name}", "name": name, "id": name})
            parts = path.strip("/").split("/")
            name = "/".join(parts[2:4])
            if parts[4:5] == ["preupload"]:
                files = [
                    {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                    for one in json.loads(body)["files"]
                ]
                return self.reply(200, {"files": files})
            if parts[4:5] == ["branch"]:
                hub.branches.append("/".join(parts[5:]))
                return self.reply(200, {})
            if parts[4:5] == ["commit"]:
                for line in body.decode().splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        hub.repos[name][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                commit = {"commitUrl": f"{address}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40, "success": True}
                return self.reply(200, commit)
            return self.reply(200, {"id": name, "sha": "0" * 40, "siblings": [], "tags": [], "private": False})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
