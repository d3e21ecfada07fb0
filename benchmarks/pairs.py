"""The pairs that every contender of `benchmarks.dpo` learns from: `python -m benchmarks.pairs FOLDER TRAINED [SOURCE]`.

Questions and answers are real ones, cut so that each question is 192 tokens long and each answer 64, the template's
own tokens counted. Written are the same pairs in the two forms that contenders read (see `benchmarks.rows`),
`held_out.jsonl`, which nobody trains on, and `adapter/`, the adapter that all start from.
"""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.rows import ALPACA, MODEL, examples

PROMPT, ANSWER = 192, 64
HELD_OUT = 32
PREFERENCES = ALPACA.with_name("dpo_en_demo.json")
COLUMNS = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}
ANSWERS = {"chosen": "input_ids", "rejected": "rejected_ids"}
# What ChatML adds to a question and to an answer, with SmolLM2's tokenizer.
ROUND_QUESTION, ROUND_ANSWER = 9, 2
LONGEST_TOKEN = 12  # characters, on average


def source(file: Path | None = None) -> tuple[str, list[tuple[str, str, str]]]:
    """The data set's name and its questions, each with the better and the worse answer.

    `file`, else `dpo_en_demo` where it is there, else the shipped set with the answer of another question as the worse.
    """
    file = file or (PREFERENCES.resolve() if PREFERENCES.exists() else None)
    if file is not None:
        return file.stem, [
            (
                "\n".join(turn["value"] for turn in row["conversations"]),
                row["chosen"]["value"],
                row["rejected"]["value"],
            )
            for row in json.loads(file.read_text())
        ]
    from benchmarks.rows import source as shipped

    name, rows = shipped()
    return name, [
        (row["instruction"], row["output"], other["output"])
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True)
    ]


def beginning(texts: list[str], number: int, tokens: int, tokenizer: Any) -> str | None:
    """The first tokens of a text, which those after it fill up; None where a cut is read as other tokens."""
    whole = "\n\n".join(islice(cycle(texts), number, number + tokens)).strip()[: LONGEST_TOKEN * tokens]
    ids = tokenizer.encode(whole, add_special_tokens=False)[:tokens]
    cut = str(tokenizer.decode(ids)).strip()
    return cut if tokenizer.encode(cut, add_special_tokens=False) == ids else None


def pairs(texts: list[tuple[str, str, str]], tokenizer: Any) -> list[dict[str, str]]:
    """The rows that can be cut to the lengths."""
    made, (questions, *answers) = [], (list(column) for column in zip(*texts, strict=True))
    for number in range(len(texts)):
        question = beginning(questions, number, PROMPT - ROUND_QUESTION, tokenizer)
        better, worse = (beginning(column, number, ANSWER - ROUND_ANSWER, tokenizer) for column in answers)
        if question and better and worse and better != worse:
            made.append({"instruction": question, "input": "", "chosen": better, "rejected": worse})
    return made


def tokenized(name: str, folder: Path) -> list[dict[str, list[int]]]:
    """One of the files of `folder` as TRL has pairs: the question's ids and those of both answers.

    Raises:
        ValueError: one of them is not as long as it should be.
    """
    made = [split(row) for row in examples(name, folder, stage="dpo")]
    for row in made:
        sizes = tuple(len(part) for part in row.values())
        if sizes != (PROMPT, ANSWER, ANSWER):
            raise ValueError(f"A pair of {sizes} tokens. Expected {(PROMPT, ANSWER, ANSWER)}.")
    return made


def split(row: Any) -> dict[str, list[int]]:
    """One pair as TRL has it."""
    start = list(row["labels"]).count(-100)
    answers = {f"{which}_ids": list(row[ids])[start:] for which, ids in ANSWERS.items()}
    return {"prompt_ids": list(row["input_ids"])[:start], **answers}


def save_adapter(model: str, folder: Path) -> None:
    """An adapter that changes nothing yet, as PEFT makes it after a seed."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=names)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(folder)


def main() -> None:
    from transformers import AutoTokenizer

    from llf_core.models import resolve_model

    folder, trained, *given = sys.argv[1:]
    out, count = Path(folder), int(trained)
    out.mkdir(parents=True, exist_ok=True)
    model = str(resolve_model(MODEL).path)
    name, texts = source(Path(given[0]) if given else None)
    rows = pairs(texts, AutoTokenizer.from_pretrained(model))
    parts = {"train": list(islice(cycle(rows[:-HELD_OUT]), count)), "held_out": rows[-HELD_OUT:]}
    for part, chosen in parts.items():
        (out / f"{part}.json").write_text(json.dumps(chosen))
    described = {part: {"file_name": f"{part}.json", "ranking": True, "columns": COLUMNS} for part in parts}
    (out / "dataset_info.json").write_text(json.dumps(described))
    for part in parts:
        (out / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tokenized(part, out)))
    save_adapter(model, out / "adapter")
    facts = {
        "data": name, "rows": count, "held_out": HELD_OUT, "prompt": PROMPT, "answer": ANSWER,
        "tokens": count * 2 * (PROMPT + ANSWER), "trained_tokens": count * 2 * ANSWER,
        "sha256": hashlib.sha256((out / "train.jsonl").read_bytes()).hexdigest(),
        "model": model, "adapter": str(out / "adapter"),
    }  # fmt: skip
    (out / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
