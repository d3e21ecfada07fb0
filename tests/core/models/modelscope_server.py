"""A ModelScope of one's own on the loopback device that modelscope-hub pushes to: the few routes of its client."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "ms-" + "a" * 30


class PushedModels:
    """What was pushed: files of each repository by name, what was asked, and routes that answer with another status."""

    def __init__(self):
        self.repos, self.visibility, self.blobs, self.asked, self.broken = {}, {}, {}, [], {}


@contextmanager
def serve_models(hub):  # noqa: C901 - one branch a route
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, status, body):
            data = json.dumps({"Code": status, "Success": status < 400, "success": status < 400} | body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self.answer()

        def do_POST(self):
            self.answer()

        def do_PUT(self):
            hub.blobs[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(200, {"Data": {}})

        def answer(self):
            path = self.path.partition("?")[0]
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            hub.asked.append((self.command, path))
            broken = next((status for part, status in hub.broken.items() if part in path), None)
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.reply(401, {"Message": f"bad token {self.headers.get('Authorization')}"})
            elif broken is not None:
                self.reply(broken, {"Message": "broken"})
            elif path.endswith("/users/me"):
                self.reply(200, {"data": {"username": "ada"}})
            elif path == "/api/v1/models":
                name = f"{body['Path']}/{body['Name']}"
                if name in hub.repos:
                    self.reply(409, {"Message": "already exists"})
                    return
                hub.repos[name], hub.visibility[name] = {}, body["Visibility"]
                self.reply(200, {"Data": {"Path": body["Path"], "Name": body["Name"]}})
            elif path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {"oid": one["oid"], "actions": {"upload": {"href": f"{address}/blobs/{one['oid']}"}}}
                    for one in body["objects"]
                ]
                self.reply(200, {"Data": {"objects": objects}})
            elif "/commit/" in path:
                name = "/".join(path.split("/")[5:7])
                for one in body["actions"]:
                    data = hub.blobs[one["sha256"]] if one["type"] == "lfs" else base64.b64decode(one["content"])
                    hub.repos[name][one["path"]] = data
                self.reply(200, {"Data": {"CommitId": "0" * 40}})
            else:
                name = "/".join(path.rstrip("/").split("/")[-2:])
                known = name in hub.repos
                self.reply(200 if known else 404, {"Data": {"Path": "ada"}, "data": {}, "Message": "not found"})

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
