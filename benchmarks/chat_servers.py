"""`llf serve` beside `transformers serve` and LLaMA-Factory's `api`: same model, machine, requests and client.

    python -m benchmarks.chat_servers [--rounds 3] [--peers transformers llamafactory]

All servers run all the time; in each round, one after the other answers. Replies are greedy and have as many tokens as
asked for. `transformers serve` has continuous batching, with which it is fastest. LLaMA-Factory answers one request
after the other; its template `chatml` has no system prompt, so that its prompts are shorter. Both are installed in
environments of their own on first use (`peers.py`). A figure is the ratio within a round.
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
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks.chat import NAME, QUESTIONS, RESULT
from benchmarks.peers import LLAMA_FACTORY, peer_environment, serving_environment
from benchmarks.processes import plain_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS, CONCURRENT, START_SECONDS = 48, 8, 180.0
FIGURES = {
    "first_token": "seconds to the first token of a request alone",
    "single": "tokens per second of a request alone",
    "concurrent": f"tokens per second of {CONCURRENT} requests at once",
}
PEERS = {"transformers": "transformers", "llamafactory": "LLaMA-Factory"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def server(command: list[str], port: int, env: dict[str, str], path: str = "/health") -> Iterator[httpx.Client]:
    """A server that answers a path, ended afterwards."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=env)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600)
        try:
            end = time.monotonic() + START_SECONDS
            while True:
                with suppress(httpx.HTTPError):
                    if client.get(path).status_code == httpx.codes.OK:
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
    """One server as the client sees it.

    Args:
        tokenizer: counts the tokens of a stream that does not say how many they are.
    """

    def __init__(self, client: httpx.Client, model: str, tokenizer: Any) -> None:
        self.client, self.model, self.tokenizer = client, model, tokenizer

    def ask(self, question: str, tokens: int = TOKENS) -> tuple[float, float, int]:
        """Seconds to the first text and to the end of a reply, and the number of its tokens."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        start, first, count, text = time.perf_counter(), 0.0, 0, ""
        with self.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if not line.startswith("data:") or line.endswith("[DONE]"):
                    continue
                chunk = json.loads(line[5:])
                text += "".join((one.get("delta") or {}).get("content") or "" for one in chunk.get("choices") or ())
                if text and not first:
                    first = time.perf_counter() - start
                count = (chunk.get("usage") or {}).get("completion_tokens") or count
        whole = time.perf_counter() - start
        return first, whole, count or len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

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


def measure(sides: dict[str, Side], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Each figure of each side by round; a first round is left out."""
    found: dict[str, dict[str, list[float]]] = {name: {figure: [] for figure in FIGURES} for name in sides}
    for number in range(rounds + 1):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in order:
            side = sides[name]
            first, whole, count = side.ask(f"{QUESTIONS[number % len(QUESTIONS)]} (round {number})")
            texts = [f"{QUESTIONS[one % len(QUESTIONS)]} (round {number}, {one})" for one in range(CONCURRENT)]
            values = {"first_token": first, "single": count / whole, "concurrent": side.ask_all(texts)}
            print(f"{'warm-up' if number == 0 else f'round {number}'}, {name}: {values}", flush=True)
            for figure in FIGURES if number else ():
                found[name][figure].append(values[figure])
    return found


def servers(peers: list[str], folder: str) -> dict[str, tuple[list[str], int, dict[str, str], str, str]]:
    """Command, port, environment, path that answers, and name of the model, of each server."""
    ports = {name: free_port() for name in ("llf", *peers)}
    start = "from llf_core.cli import main; main()"
    ours = [sys.executable, "-c", start, "serve", "--name", f"model={folder}", "--port", str(ports["llf"])]
    found = {"llf": (ours, ports["llf"], dict(os.environ), "/health", "model")}
    if "transformers" in peers:
        command = [str(serving_environment()), "serve", folder, "--device", "cpu", "--dtype", "bfloat16"]
        command += ["--continuous-batching", "--host", "127.0.0.1", "--port", str(ports["transformers"])]
        found["transformers"] = (command, ports["transformers"], plain_environment(), "/health", folder)
    if "llamafactory" in peers:
        command = [str(peer_environment()), "api", "--model_name_or_path", folder, "--template", "chatml"]
        command += ["--infer_dtype", "bfloat16"]
        env = {"API_HOST": "127.0.0.1", "API_PORT": str(ports["llamafactory"]), "API_VERBOSE": "0"}
        found["llamafactory"] = (command, ports["llamafactory"], plain_environment() | env, "/v1/models", "model")
    return found


def ratios(found: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """What each figure is beside each peer's."""
    made = {}
    for peer in list(found)[1:]:
        for figure, what in FIGURES.items():
            values = [one / other for one, other in zip(found["llf"][figure], found[peer][figure], strict=True)]
            key = figure if peer == "transformers" else f"{peer}_{figure}"
            made[key] = {
                "what": f"{what}: llf / {PEERS[peer]}", "median": statistics.median(values), "min": min(values),
                "max": max(values),
            }  # fmt: skip
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=tuple(PEERS), default=list(PEERS))
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True, help="store the figures")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers end with it
    from transformers import AutoTokenizer

    from llf_core.models import resolve_model

    folder = str(resolve_model(NAME).path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    commands = servers([name for name in PEERS if name in asked.peers], folder)
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        sides = {
            name: Side(stack.enter_context(server(command, port, env, path)), model, tokenizer)
            for name, (command, port, env, path, model) in commands.items()
        }
        found = measure(sides, asked.rounds)
    made = ratios(found)
    for value in made.values():
        print(f"{value['what']}: {value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f})")
    if not asked.keep:
        return
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    known["servers"] = {
        "ratios": made,
        "rounds": found,
        "tokens": TOKENS,
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "versions": {name: importlib.metadata.version(name) for name in ("llf", "torch", "transformers")}
        | ({"llamafactory": LLAMA_FACTORY.partition("==")[2]} if "llamafactory" in found else {}),
    }
    RESULT.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
