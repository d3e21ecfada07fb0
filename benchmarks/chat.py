"""The chat's engine against `model.generate`: the same weights, prompts and greedy tokens, on the CPU.

    python -m benchmarks.chat [--rounds 5] [--threads 2] [--dtype bfloat16] [--cpu-seconds]

Both sides have the data type that a run on this machine has, or that of `--dtype`. Whether their texts are equal is
asked in float32, since bfloat16 rounds a batch otherwise than a single row.

Each round measures both sides of every figure one after the other, in turning order; a figure is the ratio within a
round. On a machine that other programs use, `--cpu-seconds --threads 1` compares the CPU time of both sides instead of
the time that passes: memory bandwidth and cores that others take then matter less. The memory is that of a
process of its own (`--memory`).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = "smollm2-135m-instruct"
RESULT = Path(__file__).parent / "results" / "chat.json"
TOKENS = 32
"""Tokens of a reply."""
HISTORY = 1000
"""Tokens of the history before a second turn."""
QUESTIONS = (
    "Explain how a lighthouse works and why it stands near the sea.",
    "What is the capital of France?",
    "Write a short poem about a ship.",
    "How do plants make their food?",
)
WHAT = {
    "first_token": "seconds to the first token: engine / generate",
    "decode_1": "decoded tokens per second, batch of 1: engine / generate",
    "decode_8": "decoded tokens per second, batch of 8: engine / generate",
    "concurrent_16": "tokens per second of 16 requests: at once / one after the other",
    "second_turn": f"seconds to the first token after {HISTORY:,} tokens of history: kept / cold",
    "three_adapters": "resident memory: base and three adapters / base alone",
}


class Sides:
    """Both sides with copies of the same weights."""

    def __init__(self, dtype: str, clock: Callable[[], float] = time.perf_counter) -> None:
        import copy

        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from llf_core.chat.engine import Engine
        from llf_core.models import resolve_model

        folder = resolve_model(NAME).path
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.plain = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self.plain.generation_config.eos_token_id = None  # both sides write TOKENS tokens
        self.tokenizer.eos_token = None
        self.engine = Engine(copy.deepcopy(self.plain), self.tokenizer)
        self.clock, self.texts_differ = clock, 0

    def request(self, number: int, tokens: int) -> Any:
        from llf_core.chat.request import ChatRequest

        text = f"{QUESTIONS[number % len(QUESTIONS)]} ({number})"
        return ChatRequest(messages=({"role": "user", "content": text},), max_tokens=tokens)

    def forget(self) -> None:
        """Remove all prefixes, so that the next prompt is cold."""
        self.engine.forget_prefixes()

    def reply(self, requests: Sequence[Any]) -> tuple[float, list[list[Any]]]:
        """Seconds until all requests are answered, and their events."""
        events: list[list[Any]] = [[] for _ in requests]
        start = self.clock()
        for number, request in enumerate(requests):
            self.engine.submit(number, request, events[number].append)
        while self.engine.step():
            pass
        return self.clock() - start, events

    def cold_reply(self, requests: Sequence[Any]) -> tuple[float, list[list[Any]]]:
        self.forget()
        return self.reply(requests)

    def generate(self, requests: Sequence[Any], tokens: int) -> tuple[float, list[str]]:
        """Seconds of `model.generate` for all prompts as one batch, with rendering and tokenizing, and the texts."""
        import torch

        start = self.clock()
        texts = [
            self.tokenizer.apply_chat_template(list(one.messages), add_generation_prompt=True, tokenize=False)
            for one in requests
        ]
        batch = self.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
        with torch.no_grad():
            found = self.plain.generate(
                **batch, max_new_tokens=tokens, do_sample=False, eos_token_id=None,
                pad_token_id=self.tokenizer.pad_token_id,
            )  # fmt: skip
        took = self.clock() - start
        return took, self.tokenizer.batch_decode(found[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def text_of(events: list[Any]) -> str:
    from llf_core.chat.request import Piece

    return "".join(one.text for one in events if isinstance(one, Piece))


def first_token(sides: Sides, swap: bool) -> float:
    request = sides.request(0, 1)
    ours, theirs = in_order(lambda: sides.cold_reply([request])[0], lambda: sides.generate([request], 1)[0], swap)
    return ours / theirs


def decode(sides: Sides, batch: int, swap: bool) -> float:
    """Ratio of the tokens per second after the first token of each reply."""
    long, short = ([sides.request(at, tokens) for at in range(batch)] for tokens in (TOKENS, 1))

    def ours() -> tuple[float, list[str]]:
        first = sides.cold_reply(short)[0]
        took, events = sides.cold_reply(long)
        return took - first, [text_of(one) for one in events]

    def theirs() -> tuple[float, list[str]]:
        first = sides.generate(short, 1)[0]
        took, texts = sides.generate(long, TOKENS)
        return took - first, texts

    (one, texts), (other, expected) = in_order(ours, theirs, swap)
    sides.texts_differ += sum(a != b for a, b in zip(texts, expected, strict=True))
    return other / one


def concurrent(sides: Sides, swap: bool) -> float:
    requests = [sides.request(at, TOKENS) for at in range(16)]

    def serial() -> float:
        sides.forget()
        return sum(sides.reply([one])[0] for one in requests)

    together, apart = in_order(lambda: sides.cold_reply(requests)[0], serial, swap)
    return apart / together


def second_turn(sides: Sides) -> float:
    """A question after a history of about `HISTORY` tokens: just after its first turn, and with an empty cache."""
    from llf_core.chat.request import ChatRequest

    word = "The keeper of the lighthouse wrote down each ship that passed in the night. "
    count = HISTORY // len(sides.tokenizer(word)["input_ids"])
    first = ({"role": "user", "content": word * count},)
    _, events = sides.cold_reply([ChatRequest(messages=first, max_tokens=8)])
    said = {"role": "assistant", "content": text_of(events[0])}
    second = ChatRequest(messages=(*first, said, {"role": "user", "content": "And then?"}), max_tokens=1)
    kept = sides.reply([second])[0]
    return kept / sides.cold_reply([second])[0]


def in_order(ours: Callable[[], Any], theirs: Callable[[], Any], swap: bool) -> tuple[Any, Any]:
    """Both sides, the other one first where `swap` is set."""
    if swap:
        second = theirs()
        return ours(), second
    return ours(), theirs()


def write_adapters(folder: Path) -> list[Path]:
    """Three LoRA adapters of rank 8 on all linear layers, as LLF trains them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from llf_core.models import resolve_model

    found = []
    for number in range(3):
        model = AutoModelForCausalLM.from_pretrained(resolve_model(NAME).path, dtype=torch.float32)
        wrapped = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        found.append(folder / f"adapter-{number}")
        wrapped.save_pretrained(found[-1])
    return found


def memory(adapters: Sequence[str], dtype: str) -> float:
    """Resident memory of this process after replies of the base and three adapters, relative to that with the base."""
    from dataclasses import replace

    from llf_core.models.memory import release_free_memory

    sides = Sides(dtype)
    del sides.plain

    def used(name: str | None) -> int:
        sides.cold_reply([replace(sides.request(0, 8), adapter=name)])
        sides.forget()
        release_free_memory()
        return sides.engine.memory_bytes

    base = used(None)
    for number, folder in enumerate(adapters):
        sides.engine.load_adapter(str(number), Path(folder))
        last = used(str(number))
    return last / base


def memory_ratio(folders: list[Path], dtype: str) -> float:
    command = [sys.executable, "-m", "benchmarks.chat", "--dtype", dtype, "--memory", *map(str, folders)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def own_dtype() -> str:
    """The data type of the weights of a run on this machine."""
    from llf_core.config import RunConfig
    from llf_core.models.device import plan_device

    return plan_device(RunConfig.load({"dataset": "unused", "use_cpu": True})).dtype


def differing_replies() -> int:
    """How many of nine greedy replies in float32, alone and in a batch of eight, are not those of `generate`."""
    sides = Sides("float32")
    for batch in (1, 8):
        decode(sides, batch, swap=False)
    return sides.texts_differ


def measure(
    rounds: int, wanted: Sequence[str], dtype: str, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], int]:
    """Ratios of each figure by round, after a round that is left out, and the number of replies that differ."""
    sides = Sides(dtype, clock)
    found: dict[str, list[float]] = {name: [] for name in wanted}
    for number in range(rounds + 1):
        swap = number % 2 == 1
        figures: dict[str, Callable[[], float]] = {
            "first_token": partial(first_token, sides, swap),
            "decode_1": partial(decode, sides, 1, swap),
            "decode_8": partial(decode, sides, 8, swap),
            "concurrent_16": partial(concurrent, sides, swap),
            "second_turn": partial(second_turn, sides),
        }
        for name in (one for one in wanted if one in figures):
            ratio = figures[name]()
            print(f"{'warm-up' if number == 0 else f'round {number}'}: {name} {ratio:.2f}", flush=True)
            found[name] += [ratio] if number else []
    if "three_adapters" in wanted:
        with tempfile.TemporaryDirectory() as scratch:
            folders = write_adapters(Path(scratch))
            found["three_adapters"] = [memory_ratio(folders, dtype) for _ in range(2)]
    return found, differing_replies()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: that of a run on this machine")
    parser.add_argument("--cpu-seconds", action="store_true", help="compare CPU time")
    parser.add_argument("--only", nargs="*", default=list(WHAT), choices=list(WHAT))
    parser.add_argument("--memory", nargs="*", help="print the ratio of memory with these adapters, and end")
    asked = parser.parse_args()
    import torch

    dtype = asked.dtype or own_dtype()
    torch.set_num_threads(asked.threads)
    if asked.memory is not None:
        print(memory(asked.memory, dtype))
        return
    load = os.getloadavg()[0]
    clock = time.process_time if asked.cpu_seconds else time.perf_counter
    ratios, differ = measure(asked.rounds, asked.only, dtype, clock)
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    known["engine"] = {
        "ratios": known.get("engine", {}).get("ratios", {})
        | {
            name: {"what": WHAT[name], "median": statistics.median(found), "min": min(found), "max": max(found)}
            for name, found in ratios.items()
            if found
        },
        "replies_that_differ": differ,
        "tokens": TOKENS,
        "threads": asked.threads,
        "dtype": dtype,
        "clock": "CPU seconds" if asked.cpu_seconds else "seconds",
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("llf", "torch", "transformers", "peft")},
    }
    RESULT.write_text(json.dumps(known, indent=2) + "\n")
    for name, found in ratios.items():
        if found:
            print(f"{WHAT[name]}: {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})")
    print(f"replies that differ: {differ}")


if __name__ == "__main__":
    main()
