"""A real Ray on loopback: a head without cores and a node with one, both without dashboard, ended with the test."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec

import psutil
import pytest

NODES = """
import sys
from ray.cluster_utils import Cluster
settings = {"num_gpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.1", "object_store_memory": 2**27}
cluster = Cluster(initialize_head=True, head_node_args=settings | {"num_cpus": 0})
cluster.add_node(**settings, num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
"""


def is_there():
    return find_spec("ray") is not None


class Cluster:
    """Attributes: address (HOST:PORT), own and env (variables of the processes that use it)."""

    def __init__(self, place):
        self.own = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": place,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback is not replaced by another address
            "RAY_gcs_rpc_server_reconnect_timeout_s": "20",  # how long a node waits for its head
        }
        self.env = {name: value for name, value in os.environ.items() if name != "LLF_HOME"} | self.own
        for _ in range(4):  # a node ends where its agents take longer than it waits, as on a busy machine
            self.nodes = subprocess.Popen(
                [sys.executable, "-c", NODES], env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self.address = self.nodes.stdout.readline().strip()
            if self.address:
                return
            self.end()
        pytest.skip("Ray does not start on this machine")

    def end_head(self):
        """SIGKILL to the process that knows the whole cluster."""
        (head,) = [one for one in psutil.Process(self.nodes.pid).children() if one.name() == "gcs_server"]
        head.kill()

    def end(self):
        """SIGKILL to all of its processes; some have lost their parent."""
        self.nodes.kill()
        for one in psutil.process_iter():
            try:
                if one.environ().get("RAY_TMPDIR") == self.own["RAY_TMPDIR"] and one.pid != os.getpid():
                    one.kill()
            except psutil.Error:
                continue
        self.nodes.wait()


@contextmanager
def cluster():
    place = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # the paths of Ray's sockets are short
    try:
        one = Cluster(place)
        try:
            yield one
        finally:
            one.end()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def busy(address, env):
    """A process that holds the only core of the cluster until it is killed."""
    code = f"""
import ray, time
ray.init(address={json.dumps(address)}, log_to_driver=False, logging_level="error")
ray.get(ray.remote(num_cpus=1)(lambda: 1).remote())
print("held", flush=True)
ray.get(ray.remote(num_cpus=1)(lambda: time.sleep(600)).remote())
"""
    held = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    assert held.stdout.readline().strip() == "held"
    return held
