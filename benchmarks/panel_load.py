"""Many sidebars on one Jupyter server: how long each of their requests takes, and what the server needs for it.

    python -m benchmarks.panel_load [--runs 10000] [--clients 50] [--seconds 30] [--pause 3]

Starts a Jupyter server with LLF's extension on a folder of runs. A client does what a sidebar does: it asks for the
list, and again after a pause; every other time it searches, with words that are seldom the same, filters or sorts; now
and then it looks at adapters, the bin and a run's details. Before that, one client asks the new server for the list and
for a search. Writes `results/panel_load.json`: times by kind of request, errors, the server's CPU and memory, and the
load average of the machine, since the clients and whatever else runs share its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks import results
from benchmarks.panel import make_runs

RESULTS = Path(__file__).parent / "results" / "panel_load.json"
START_SECONDS = 60.0
TIMEOUT = 20.0  # seconds, as a browser's user would wait at most
SELDOM = 5  # looks at the list for one at adapters and bin
Times = dict[str, list[float]]


class Server:
    """A Jupyter server with LLF alone.

    Args:
        home: its `LLF_HOME`.
    """

    def __init__(self, home: Path, scratch: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        token = secrets.token_hex(16)
        folders = {name: str(scratch / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
        environment = os.environ | folders | {"LLF_HOME": str(home), "JUPYTER_TOKEN": token}
        command = [
            sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", f"--port={port}",
            f"--ServerApp.root_dir={scratch}", "--ServerApp.jpserver_extensions={'llf_widgets': True}",
            "--ServerApp.port_retries=0", "--ServerApp.log_level=ERROR",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, env=environment, cwd=scratch, stdin=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{port}/llf/api/"
        self.headers = {"Authorization": f"token {token}"}
        self._facts = psutil.Process(self._process.pid)

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        times = self._facts.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        """Resident bytes."""
        return int(self._facts.memory_info().rss)

    def close(self) -> None:
        """Ends the server."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()


class Load:
    """Clients that ask, and the times of their requests."""

    def __init__(self, server: Server, runs: int, seed: int = 0) -> None:
        from tornado.httpclient import AsyncHTTPClient

        self._server, self._runs, self._random = server, runs, random.Random(seed)
        self._http = AsyncHTTPClient(force_instance=True, max_clients=1000)
        self.times: Times = defaultdict(list)
        self.errors: list[str] = []

    async def ask(self, kind: str, route: str, **query: Any) -> Any:
        """One request, its time noted; the decoded answer, None after an error."""
        from tornado.httputil import url_concat

        began = time.perf_counter()
        url = url_concat(self._server.url + route, {name: str(value) for name, value in query.items()})
        try:
            answer = await self._http.fetch(url, headers=self._server.headers, request_timeout=TIMEOUT)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is an error of the measurement
            self.errors.append(f"{kind}: {error}")
            return None
        finally:
            self.times[kind].append(time.perf_counter() - began)
        return json.loads(answer.body)

    async def client(self, until: float, pause: float) -> None:
        """One sidebar."""
        await asyncio.sleep(self._random.uniform(0, pause))
        look, last = 0, ""
        while time.monotonic() < until:
            page = await self.ask("list", "runs", limit=50)
            last = page["runs"][0]["id"] if page and page["runs"] else last
            if look % SELDOM == 0:
                await self.ask("adapters", "adapters", limit=20)
                await self.ask("bin", "bin", limit=1)
                if last:
                    await self.ask("details", f"runs/{last}", details=1)
            await asyncio.sleep(pause / 2)
            await self.ask(*self._search())
            await asyncio.sleep(pause / 2)
            look += 1

    def _search(self) -> tuple[str, str]:
        number = self._random.randrange(self._runs)
        kind, query = self._random.choice(
            [
                ("search", f"query=model-{number % 7}+data-{number % 11}"),
                ("search", f"query=run+{number}"),
                ("search", f"query=ru+mod+dat+{number % 100}"),
                ("search", f"query=nothing-{number}"),
                ("filter", "state=finished"),
                ("sort", "sort=loss"),
                ("sort", "sort=name&query=model"),
            ]
        )
        return kind, f"runs?limit=50&{query}"


async def first_answers(load: Load) -> dict[str, float]:
    """Seconds of a new server's first list and first search, and until a search sees all runs."""
    began = time.monotonic()
    while await load.ask("version", "version") is None:
        if time.monotonic() > began + START_SECONDS:
            raise SystemExit("The server does not answer.")
        await asyncio.sleep(0.2)
    load.errors.clear()
    found = {"started_s": time.monotonic() - began}
    await load.ask("first", "runs", limit=50)
    began = time.monotonic()
    answer = await load.ask("first", "runs", limit=50, query="model-3 data-5")
    found |= {"first_list_s": load.times["first"][0], "first_search_s": load.times["first"][1]}
    while answer is not None and "reading" in answer:
        await asyncio.sleep(0.1)
        answer = await load.ask("while reading", "runs", limit=50, query="model-3 data-5")
    return found | {"all_found_s": time.monotonic() - began}


async def measure(server: Server, runs: int, clients: int, seconds: float, pause: float) -> dict[str, Any]:
    """The first answers, then all clients at once."""
    first = await first_answers(Load(server, runs))
    load = Load(server, runs)
    began, cpu, peak = time.monotonic(), server.cpu(), server.memory()
    asking = [asyncio.ensure_future(load.client(began + seconds, pause)) for _ in range(clients)]
    while not all(one.done() for one in asking):
        await asyncio.wait(asking, timeout=0.5)
        peak = max(peak, server.memory())
    took = time.monotonic() - began
    every = [one for times in load.times.values() for one in times]
    return {
        "first": first,
        "requests": {kind: figures(times) for kind, times in load.times.items()} | {"all": figures(every)},
        "per_second": len(every) / took,
        "errors": len(load.errors),
        "said": sorted(set(load.errors))[:5],
        "server_cores": (server.cpu() - cpu) / took,
        "server_memory_mb": peak / 1e6,
        "load_average": os.getloadavg(),
    }


def figures(times: list[float]) -> dict[str, float]:
    """How many, and their median, 99th percentile and largest, in seconds."""
    rising = sorted(times)
    return {
        "count": len(rising),
        "p50_s": statistics.median(rising),
        "p99_s": rising[min(len(rising) - 1, int(0.99 * len(rising)))],
        "largest_s": rising[-1],
    }


def main() -> None:
    """Measures, prints and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--pause", type=float, default=3, help="seconds from one look of a client to its next")
    parser.add_argument("--home", type=Path, help="a folder for the runs, which is kept and used again")
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llf-panel-load-") as scratch:
        home = asked.home or Path(scratch) / "home"
        if not home.exists():
            make_runs(home, asked.runs)
        server = Server(home, Path(scratch))
        try:
            found = asyncio.run(measure(server, asked.runs, asked.clients, asked.seconds, asked.pause))
        finally:
            server.close()
    for name, value in found["first"].items():
        print(f"{name:20} {value:8.3f} s")
    print(f"{'request':12} {'count':>6} {'p50, ms':>9} {'p99, ms':>9} {'largest':>9}")
    for kind, one in found["requests"].items():
        numbers = "".join(f" {1000 * one[name]:9.1f}" for name in ("p50_s", "p99_s", "largest_s"))
        print(f"{kind:12} {one['count']:6}{numbers}")
    print(
        f"{found['per_second']:.1f} requests a second, {found['errors']} errors, server {found['server_cores']:.2f} "
        f"cores and {found['server_memory_mb']:.0f} MB, load average {found['load_average'][0]:.2f}"
    )
    for said in found["said"]:
        print(f"  {said}")
    sizes = {name: getattr(asked, name) for name in ("runs", "clients", "seconds", "pause")}
    asked.results.write_text(results.text_of(results.circumstances() | sizes | found))


if __name__ == "__main__":
    main()
