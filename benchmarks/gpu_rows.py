"""The examples of one cell: `python -m benchmarks.gpu_rows FOLDER MODEL KIND LENGTH TOKENS STEPS PACKED`.

Texts are the shipped data sets', cut to lengths between a sixteenth of LENGTH and all of it, short ones as often as
long ones on a logarithmic scale (seeded); a quarter of an example is its question. Written are the two forms that
contenders read, see `benchmarks.rows`, and `facts.json`.
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

from benchmarks.pairs import COLUMNS, split
from benchmarks.rows import examples, source

IDS = ("input_ids", "labels")
SHORTEST = 16  # the shortest example is LENGTH / SHORTEST
TEMPLATE = 24  # tokens that a template puts around, at most
SPARE = 1.2  # packed rows are rarely full


def lengths(longest: int, total: int, count: int, seed: int = 0) -> list[int]:
    """Lengths of examples, in tokens.

    Args:
        total: of all together, at least.
        count: of examples, at least.
    """
    draw = random.Random(seed)
    found: list[int] = []
    while sum(found) < total or len(found) < count:
        found.append(round(longest * math.exp(-draw.random() * math.log(SHORTEST))))
    return found


def mean_length(longest: int) -> float:
    """The mean of such lengths."""
    return longest * (1 - 1 / SHORTEST) / math.log(SHORTEST)


def batch_size(kind: str, longest: int, tokens: int, *, packed: bool) -> int:
    """Rows or pairs of a step of about so many tokens."""
    row = longest if packed or kind == "dpo" else mean_length(longest)
    return max(1, round(tokens / row))


def texts(sizes: list[int], kind: str, tokenizer: Any) -> list[dict[str, str]]:
    """Examples of about these lengths."""
    ids = tokenizer.encode("\n\n".join(f"{row['instruction']}\n{row['output']}" for row in source()[1]))
    place, made = 0, []

    def take(count: int) -> str:
        nonlocal place
        start, place = place, place + max(count, 2)
        return str(tokenizer.decode([ids[number % len(ids)] for number in range(start, place)]))

    for size in sizes:
        free = max(size - TEMPLATE, 8)
        if kind == "dpo":
            answers = {"chosen": take(free // 4), "rejected": take(free // 4)}
            made.append({"instruction": take(free // 2), "input": "", **answers})
        else:
            made.append({"instruction": take(free // 4), "input": "", "output": take(free - free // 4)})
    return made


def main() -> None:
    from transformers import AutoTokenizer

    folder, model, kind, length, tokens, steps, packed = sys.argv[1:]
    out, longest = Path(folder), int(length)
    out.mkdir(parents=True, exist_ok=True)
    batch = batch_size(kind, longest, int(tokens), packed=packed == "1")
    if packed == "1":
        sizes = lengths(longest, round(SPARE * int(steps) * batch * longest), 1)
    else:
        sizes = lengths(longest, 0, int(steps) * batch)
    rows = texts(sizes, kind, AutoTokenizer.from_pretrained(model))
    (out / "train.json").write_text(json.dumps(rows))
    more = {"ranking": True, "columns": COLUMNS} if kind == "dpo" else {}
    (out / "dataset_info.json").write_text(json.dumps({"train": {"file_name": "train.json", **more}}))
    found = examples("train", out, model_name_or_path=model, cutoff_len=longest, stage=kind)
    ids = [split(row) if kind == "dpo" else {name: list(row[name]) for name in IDS} for row in found]
    (out / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ids))
    counts = [len(row["input_ids"]) for row in found]
    learned = sum(label != -100 for row in found for label in row["labels"])
    facts = {
        "rows": len(ids), "batch": batch, "tokens": sum(counts), "trained_tokens": learned, "longest": max(counts),
        "context": round(sum(count * count for count in counts) / sum(counts), 1), "model": model,
    }  # fmt: skip
    (out / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
