"""`llf serve` beside `transformers serve`: the same model, machine and requests, by the same client.

    python -m benchmarks.chat_servers [--rounds 3]

Both servers run all the time; in each round, one after the other answers. Replies are greedy and have as many tokens as
asked for. `transformers serve` has continuous batching, with which it is fastest; it needs
`pip install "transformers[serving]"`. A figure is the ratio within a round.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx

from benchmarks.chat import NAME, QUESTIONS, RESULT

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS, CONCURRENT, START_SECONDS = 48, 8, 180.0
GOALS = {"first_token": ("at most", 1.0), "single": ("at least", 1.0), "concurrent": ("at least", 1.0)}
WHAT = {
    "first_token": "seconds to the first token of a request alone: llf / transformers",
    "single": "tokens per second of a request alone: llf / transformers",
    "concurrent": f"tokens per second of {CONCURRENT} requests at once: llf / transformers",
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def server(command: list[str], port: int) -> Iterator[httpx.Client]:
    """A server that answers, ended afterwards."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600)
        try:
            end = time.monotonic() + START_SECONDS
            while True:
                with suppress(httpx.HTTPError):
                    if client.get("/health").status_code == httpx.codes.OK:
                        break
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise SystemExit(f"{' '.join(command)} did not start:\n{log.read().decode()[-2000:]}")
                time.sleep(0.2)
            yield client
        finally:
            client.close()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


class Side:
    """One server as the client sees it."""

    def __init__(self, client: httpx.Client, model: str) -> None:
        self.client, self.model = client, model

    def ask(self, text: str, tokens: int = TOKENS) -> tuple[float, float, int]:
        """Seconds to the first text and to the end of a reply, and the number of its tokens."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        start, first, count, pieces = time.perf_counter(), 0.0, 0, 0
        with self.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if not line.startswith("data:") or line.endswith("[DONE]"):
                    continue
                chunk = json.loads(line[5:])
                text_here = any((one.get("delta") or {}).get("content") for one in chunk.get("choices") or ())
                pieces += text_here
                if text_here and not first:
                    first = time.perf_counter() - start
                count = (chunk.get("usage") or {}).get("completion_tokens") or count
        return first, time.perf_counter() - start, count or pieces

    def ask_all(self, texts: list[str]) -> float:
        """Tokens per second of requests at once."""
        counts: list[int] = []
        threads = [threading.Thread(target=lambda text=text: counts.append(self.ask(text)[2])) for text in texts]
        start = time.perf_counter()
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        return sum(counts) / (time.perf_counter() - start)


def measure(sides: list[Side], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[list[float]]]]:
    """Ratios of each figure by round, and what they are made of; a first round is left out."""
    ratios: dict[str, list[float]] = {name: [] for name in WHAT}
    raw: dict[str, list[list[float]]] = {name: [] for name in WHAT}
    for number in range(rounds + 1):
        found: list[dict[str, float]] = [{}, {}]
        for at in (0, 1) if number % 2 == 0 else (1, 0):
            side = sides[at]
            first, whole, count = side.ask(f"{QUESTIONS[number % len(QUESTIONS)]} (round {number})")
            found[at] |= {"first_token": first, "single": count / whole}
            texts = [f"{QUESTIONS[one % len(QUESTIONS)]} (round {number}, {one})" for one in range(CONCURRENT)]
            found[at]["concurrent"] = side.ask_all(texts)
        print(f"{'warm-up' if number == 0 else f'round {number}'}: {found}", flush=True)
        for name in WHAT if number else ():
            ratios[name].append(found[0][name] / found[1][name])
            raw[name].append([found[0][name], found[1][name]])
    return ratios, raw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    from llf_core.models import resolve_model

    folder = str(resolve_model(NAME).path)
    ports = free_port(), free_port()
    start = "from llf_core.cli import main; main()"
    ours = [sys.executable, "-c", start, "serve", "--name", f"model={folder}", "--port", str(ports[0])]
    tool = os.path.join(os.path.dirname(sys.executable), "transformers")  # noqa: PTH118, PTH120 - a script beside Python
    theirs = [tool, "serve", folder, "--device", "cpu", "--dtype", "bfloat16", "--continuous-batching"]
    theirs += ["--host", "127.0.0.1", "--port", str(ports[1])]
    load = os.getloadavg()[0]
    with server(ours, ports[0]) as one, server(theirs, ports[1]) as other:
        ratios, raw = measure([Side(one, "model"), Side(other, folder)], asked.rounds)
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    known["servers"] = {
        "goals": {name: list(goal) for name, goal in GOALS.items()},
        "ratios": {
            name: {"what": WHAT[name], "median": statistics.median(found), "min": min(found), "max": max(found)}
            for name, found in ratios.items()
        },
        "rounds": raw,
        "tokens": TOKENS,
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "versions": {name: importlib.metadata.version(name) for name in ("llf", "torch", "transformers")},
    }
    RESULT.write_text(json.dumps(known, indent=2) + "\n")
    for name, found in ratios.items():
        side, goal = GOALS[name]
        print(f"{WHAT[name]}: {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f}); {side} {goal}")


if __name__ == "__main__":
    main()
