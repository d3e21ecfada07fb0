"""The section of `docs/benchmarks.md` about the chat, made of `results/chat.json`."""

from __future__ import annotations

from typing import Any


def text(result: dict[str, Any]) -> str:
    """The section.

    Args:
        result: what `benchmarks.chat` and `benchmarks.chat_servers` stored.
    """
    parts = []
    if "engine" in result:
        engine = result["engine"]
        about = (
            f"`python -m benchmarks.chat`: the engine beside `model.generate` on the same weights in "
            f"{engine['dtype']}, {engine['threads']} threads, {engine['clock']}, greedy replies of {engine['tokens']} "
            f"tokens; load of the machine {load(engine)}. Of nine replies in float32, "
            f"{engine['replies_that_differ']} differed."
        )
        parts += ["## The chat's engine", about, table(engine)]
    if "servers" in result:
        servers = result["servers"]
        number = servers["versions"].get("llamafactory")
        factory = f" and LLaMA-Factory {number}'s `api`, which answers one request after the other" if number else ""
        about = (
            f"`python -m benchmarks.chat_servers`: `llf serve` beside `transformers serve` "
            f"{servers['versions']['transformers']} with continuous batching{factory}, in bfloat16, the same client, "
            f"greedy replies of {servers['tokens']} tokens; load of the machine {load(servers)}."
        )
        parts += ["## The chat's server", about, table(servers)]
    return "\n\n".join(parts)


def load(measured: dict[str, Any]) -> str:
    """The load before and after."""
    before, after = measured["load"]
    return f"{before} to {after}"


def table(measured: dict[str, Any]) -> str:
    """A line for each ratio."""
    lines = ["| what | median | smallest to largest |", "|---|---|---|"]
    lines += [
        f"| {found['what']} | **{found['median']:.2f}** | {found['min']:.2f} to {found['max']:.2f} |"
        for found in measured["ratios"].values()
    ]
    return "\n".join(lines)
