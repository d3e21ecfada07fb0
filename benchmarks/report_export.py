"""The section of `docs/benchmarks.md` about GGUF exports, made of `results/export.json`."""

from __future__ import annotations

from typing import Any


def text(result: dict[str, Any]) -> str:
    """The section.

    Args:
        result: what `benchmarks.export` stored.
    """
    rows = {row["quantization"]: row for row in result["rows"]}
    about = (
        f"`python -m benchmarks.export`: `llf.export` of `{result['model']}` as GGUF. KL(f16 ‖ quantized), perplexity "
        "(a text of 400 tokens) and changed tokens (of the greedy answers of f16 to 20 prompts, each after the same "
        "tokens) in llama.cpp, and with the same file dequantized in transformers. Speed: one thread, "
        f"{result['rounds']} rounds, tokens per second of processor time."
    )
    parts = ["## GGUF quantizations of the embedded model", about, table(result["rows"])]
    if "Q8_0" in rows:
        file, engine = (1 - rows["Q8_0"][key] for key in ("changed_greedy_transformers", "changed_greedy"))
        parts.append(
            f"Of the greedy tokens of f16, the weights of Q8_0 keep **{file:.1%}**. llama.cpp keeps **{engine:.1%}**, "
            "since it rounds the inputs of each product to 8 bits as well."
        )
    return "\n\n".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    """The figures of each quantization."""
    lines = [
        "| | MB | KL, llama.cpp | dequantized | changed, llama.cpp | dequantized | perplexity | speed | of f16 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kls = [f"{row[key]:.2g}" for key in ("kl", "kl_transformers")]
        changed = [f"{row[key]:.1%}" for key in ("changed_greedy", "changed_greedy_transformers")]
        cells = [row["quantization"], f"{row['bytes'] / 1e6:.0f}", *kls, *changed, f"{row['perplexity']:.1f}"]
        cells += [f"{row['tokens_per_core_second']:.0f}", f"{row['speed_ratio']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
