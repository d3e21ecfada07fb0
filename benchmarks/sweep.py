"""What a token costs LLF as one thing grows: length of the rows, batch, rank, size of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import models, results
from benchmarks.contender import train
from benchmarks.ratios import LEFT_OUT, tokens_per_second

if TYPE_CHECKING:
    from benchmarks.contender import Bench

STEPS = LEFT_OUT + 6
TOKENS = 2048  # a step, where the length is what changes
LENGTHS, BATCHES, RANKS = (128, 256, 512, 1024, 2048), (1, 2, 4, 8, 16), (4, 8, 16, 64, 256)
# Layers, hidden size, inner size, heads, key-value heads: half of SmolLM2-135M, itself, and SmolLM2-360M's shapes.
SIZES = {"68M": (15, 576, 1536, 9, 3), "135M": (30, 576, 1536, 9, 3), "360M": (32, 960, 2560, 15, 5)}


def measure(bench: Bench) -> dict[str, Any]:
    """One run a point; returns circumstances and `runs`, each with `swept` and `value`."""
    write_long_rows(bench)
    points: list[tuple[str, Any, dict[str, Any], str]] = [
        ("length", length, {"cutoff_len": length, **batch(TOKENS // length)}, "long") for length in LENGTHS
    ]
    points += [("batch", size, batch(size), "train") for size in BATCHES]
    points += [("rank", rank, {"lora_rank": rank, "lora_alpha": 2 * rank, **batch(4)}, "train") for rank in RANKS]
    sizes = {name: str(random_model(name, bench)) for name in SIZES}
    points += [("size", name, {"model_name_or_path": path, **batch(4)}, "train") for name, path in sizes.items()]
    made: dict[str, Any] = results.circumstances() | {"runs": []}
    for swept, value, changes, data in points:
        found = train("llf", bench, {"max_steps": STEPS, **changes}, data)
        found.pop("output")
        made["runs"].append({"contender": "llf", "round": 0, "swept": swept, "value": value} | found)
        print(
            f"  {swept:8}{value:>6}{tokens_per_second(found):8.0f} tokens/s{found['peak_bytes'] / 1e9:7.2f} GB",
            flush=True,
        )
    return made


def batch(size: int) -> dict[str, int]:
    """Rows of a step, all at once."""
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": 1}


def write_long_rows(bench: Bench) -> None:
    """Rows of more tokens than the longest cut, so that every row is as long as the cut."""
    answers = [row["output"] for row in json.loads((bench.rows / "train.json").read_text())]
    count = STEPS * max(TOKENS // LENGTHS[0], 1)
    texts = ["\n".join((answers[number % 7 :] + answers)[:60])[:16_000] for number in range(count)]
    texts = [(text * (1 + 16_000 // len(text)))[:16_000] for text in texts]
    rows = [{"instruction": f"Go on, {number}.", "input": "", "output": text} for number, text in enumerate(texts)]
    (bench.rows / "long.json").write_text(json.dumps(rows))
    info = bench.rows / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"long": {"file_name": "long.json"}}))


def random_model(name: str, bench: Bench) -> Path:
    """A folder with a Llama of that size, random weights and SmolLM2's tokenizer."""
    layers, hidden, inner, heads, groups = SIZES[name]
    shape = {
        "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": inner,
        "num_attention_heads": heads, "num_key_value_heads": groups,
    }  # fmt: skip
    return models.random_model(bench.work / "models" / name, Path(bench.facts["model"]), shape)
