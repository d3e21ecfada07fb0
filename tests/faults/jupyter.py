"""A real Jupyter server on loopback and real kernels, driven as a notebook drives them: REST and websockets."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import psutil
import websocket

TOKEN = "llf-faults"
START_SECONDS = 200
IDLE_SECONDS = 200


class Jupyter:
    """A Jupyter server process with LLF's extension, as the one that holds a user's kernels.

    Args:
        folder: for its runtime files; each server needs one of its own.
        env: environment variables besides this process's own, for the server and so for its kernels.
    """

    def __init__(self, folder, env=None):
        self.runtime = folder / "runtime"
        self.runtime.mkdir(parents=True)
        self.log = folder / "server.log"
        paths = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1",
                    "--port=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
                    "--ServerApp.jpserver_extensions={'llf_widgets': True}",
                ],
                env=os.environ
                | {"JUPYTER_RUNTIME_DIR": str(self.runtime), "OMP_NUM_THREADS": "1"}
                | {name: str(folder / name.lower()) for name in paths}
                | (env or {}),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.url = self._address()

    def _address(self):
        """Where it listens, once it answers."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            for record in self.runtime.glob("jpserver-*.json"):
                try:
                    self.url = json.loads(record.read_text())["url"]
                    self.ask("api/status")
                except (OSError, ValueError, KeyError):
                    continue
                return self.url
            time.sleep(0.05)
        raise AssertionError(f"The Jupyter server did not start:\n{self.log.read_text()[-3000:]}")

    def ask(self, path, method="GET", body=None):
        """One REST call; the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Authorization": f"token {TOKEN}"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as response:
            text = response.read()
        return json.loads(text) if text else None

    def kernel(self):
        """Starts a kernel."""
        return Kernel(self, self.ask("api/kernels", "POST", {"name": "python3"})["id"])

    def kill(self):
        """SIGKILL to the server alone."""
        self.process.kill()
        self.process.wait()

    def close(self):
        """Ends the server with its kernels."""
        if self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.kill()
            for child in children:
                try:
                    child.kill()
                except psutil.NoSuchProcess:
                    continue


class Kernel:
    """One kernel of a server."""

    def __init__(self, server, kernel_id):
        self.server, self.id = server, kernel_id
        self.pid = int(self.run("import os; print(os.getpid())"))

    def send(self, code):
        """Starts a cell and returns its open channel; `listen` follows it."""
        address = self.server.url.replace("http", "ws", 1)
        channel = websocket.create_connection(
            f"{address}api/kernels/{self.id}/channels", timeout=IDLE_SECONDS, header=[f"Authorization: token {TOKEN}"]
        )
        header = {
            "msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": uuid.uuid4().hex,
            "version": "5.3", "date": "",
        }  # fmt: skip
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        channel.send(json.dumps(message | {"buffers": []}))
        channel.cell = header["msg_id"]
        return channel

    def listen(self, channel, until=None):
        """What a cell prints, up to its end or up to the text `until`.

        Raises:
            AssertionError: the cell raised.
        """
        printed = ""
        while until is None or until not in printed:
            message = json.loads(channel.recv())
            if message["parent_header"].get("msg_id") != channel.cell:
                continue
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                printed += content["text"]
            elif message["msg_type"] == "error":
                raise AssertionError("\n".join(content["traceback"]))
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
        return printed

    def run(self, code):
        """Executes a cell to its end; what it printed."""
        channel = self.send(code)
        try:
            return self.listen(channel).strip()
        finally:
            channel.close()

    def interrupt(self):
        """As the button in the notebook does."""
        self.server.ask(f"api/kernels/{self.id}/interrupt", "POST", {})

    def restart(self):
        """As the button in the notebook does."""
        self.server.ask(f"api/kernels/{self.id}/restart", "POST", {})
        self.pid = int(self.run("import os; print(os.getpid())"))

    def shutdown(self):
        """As closing the notebook with its kernel does."""
        self.server.ask(f"api/kernels/{self.id}", "DELETE")

    def kill(self):
        """SIGKILL, as the system does when memory runs out."""
        psutil.Process(self.pid).kill()


def notebook_cell(config):
    """The cell that starts a run and prints its id; the file of the config keeps the cell free of quoting."""
    return f"import llf_widgets as llf\nrun = llf.train({str(config)!r})\nprint(run.id)"


def write_config(folder, settings):
    """The settings as a file, for a cell."""
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(settings))
    return path
