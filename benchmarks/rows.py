"""The rows that every contender trains on: `python -m benchmarks.rows FOLDER TRAINED [SOURCE.json]`.

Writes the same rows in the two forms that contenders read: Alpaca rows with a `dataset_info.json` (LLF and
LLaMA-Factory, which tokenize them themselves), and token ids with labels (the others), made by LLF's own steps; and
`held_out.jsonl`, the last rows of the source, which nobody trains on. A source that is too small is read again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import cycle, islice
from pathlib import Path
from typing import Any

HELD_OUT = 48
MODEL = "smollm2-135m-instruct"
ALPACA = Path(__file__).parents[1] / ".." / "shared" / "data" / "llama_factory" / "alpaca_en_demo.json"


def source(file: Path | None = None) -> tuple[str, list[dict[str, Any]]]:
    """The data set's name and its rows: `file`, else `alpaca_en_demo` where it is there, else the shipped set."""
    file = file or (ALPACA.resolve() if ALPACA.exists() else None)
    if file is not None:
        return file.stem, json.loads(file.read_text())
    from llf_core.data.sources import DEMO_FILE

    turns = [json.loads(line)["messages"] for line in DEMO_FILE.read_text().splitlines()]
    return "llf_demo", [
        {"instruction": one[-2]["content"], "input": "", "output": one[-1]["content"]} for one in turns if len(one) == 2
    ]


def examples(name: str, folder: Path, **more: str | int) -> Any:
    """One of the files of `folder`, as LLF reads it."""
    from llf_core.config import RunConfig
    from llf_core.data import prepare
    from llf_core.models import load_tokenizer, resolve_model

    asked = {"model_name_or_path": MODEL, "dataset": name, "dataset_dir": str(folder)}
    config = RunConfig.load(asked | {"template": "chatml", "cutoff_len": 1024} | more)
    model = resolve_model(config.model.model_name_or_path, config)
    return prepare(config, load_tokenizer(model, config)).train


def tokenized(name: str, folder: Path) -> list[dict[str, list[int]]]:
    """The same as token ids and labels."""
    return [{"input_ids": list(row["input_ids"]), "labels": list(row["labels"])} for row in examples(name, folder)]


def main() -> None:
    from llf_core.models import resolve_model

    folder, trained, *given = sys.argv[1:]
    out, count = Path(folder), int(trained)
    out.mkdir(parents=True, exist_ok=True)
    name, all_rows = source(Path(given[0]) if given else None)
    parts = {"train": list(islice(cycle(all_rows[:-HELD_OUT]), count)), "held_out": all_rows[-HELD_OUT:]}
    for part, chosen in parts.items():
        (out / f"{part}.json").write_text(json.dumps(chosen))
    (out / "dataset_info.json").write_text(json.dumps({part: {"file_name": f"{part}.json"} for part in parts}))
    facts: dict[str, Any] = {"data": name, "rows": count, "held_out": HELD_OUT}
    for part in parts:
        made = tokenized(part, out)
        (out / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
        if part == "train":
            facts["tokens"] = sum(len(row["input_ids"]) for row in made)
            facts["trained_tokens"] = sum(label != -100 for row in made for label in row["labels"])
    facts["sha256"] = hashlib.sha256((out / "train.jsonl").read_bytes()).hexdigest()
    facts["model"] = str(resolve_model(MODEL).path)
    (out / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
