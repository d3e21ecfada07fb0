"""A hub of one's own on the loopback device: the few routes that huggingface_hub asks for a model or a data set."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What is served and what was asked.

    `repos` maps an id to a folder, or to a refusal `(status, X-Error-Code)`; `token` is needed where it is set. All may
    read about a repository in `gated`, and nobody its files.
    """

    def __init__(self):
        self.repos, self.asked, self.token, self.tags, self.gated = {}, [], None, [], set()


@contextmanager
def serve(hub):  # noqa: C901 - one branch a route
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, status, body=b"", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):  # noqa: PLR0911 - one answer a route
            path = self.path.partition("?")[0].strip("/").split("/")
            hub.asked.append((self.command, self.path))
            if path[0] == "datasets":
                path = path[1:]
            api = path[:2] in (["api", "models"], ["api", "datasets"])
            name = "/".join(path[2:4] if api else path[:2])
            found = hub.repos.get(name, (404, "RepoNotFound"))
            if isinstance(found, tuple):
                return self.reply(found[0], b"{}", X_Error_Code=found[1])
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.reply(401, b"{}", X_Error_Code="GatedRepo")
            if name in hub.gated and not api:
                return self.reply(403, b"{}", X_Error_Code="GatedRepo")
            if api and len(path) == 4:
                path += ["revision", "main"]
            revision = path[5] if api else path[3]
            if revision not in {"main", COMMIT}:
                return self.reply(404, b"{}", X_Error_Code="RevisionNotFound")
            files = sorted(str(file.relative_to(found)) for file in found.rglob("*") if file.is_file())
            if api and path[4] == "revision":
                siblings = [{"rfilename": file} for file in files]
                body = {"id": name, "sha": COMMIT, "siblings": siblings, "tags": hub.tags, "private": False}
                return self.reply(200, json.dumps(body).encode(), Content_Type="application/json")
            if api and path[4] == "tree":
                entries = [self.entry(found, file) for file in files]
                return self.reply(200, json.dumps(entries).encode(), Content_Type="application/json")
            file = found / "/".join(path[4:])
            if not file.is_file():
                return self.reply(404, b"", X_Error_Code="EntryNotFound")
            data = file.read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X_Repo_Commit": COMMIT}
            return self.reply(200, data, Content_Length=str(len(data)), **headers)

        @staticmethod
        def entry(found, file):
            data = (found / file).read_bytes()
            return {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
