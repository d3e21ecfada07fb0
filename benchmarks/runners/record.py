# ruff: noqa: ARG002 - a callback takes what the Trainer passes
"""What a trainer built on `transformers.Trainer` did, step by step, seen through its callbacks.

Works with every version of transformers that the contenders bring along. Tokens are counted where batches are made:
the Trainer makes one batch ahead, so batches are dealt to steps afterwards, in order.
"""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.ratios import MEASURES

IGNORED = -100


class Recorder(TrainerCallback):
    """Notes the end and the loss of each optimizer step, and the tokens of each micro-batch."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.more: dict[str, float] = {}
        self.batches: list[tuple[int, int]] = []
        self.ends: list[float] = []
        self.cpu: list[float] = []
        self.losses: list[float] = []
        self.measures: list[list[float]] = []
        self.began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        """Puts a counter around the collator, which is all that a batch passes through in this process."""
        # What accelerate wraps is what makes the batches.
        loader = getattr(train_dataloader, "base_dataloader", train_dataloader)
        collate = loader.collate_fn

        def counting(features: list[dict[str, Any]]) -> Any:
            tokens = sum(real_tokens(feature) for feature in features)
            batch = collate(features)
            self.batches.append((tokens, trained_tokens(batch)))
            return batch

        loader.collate_fn = counting
        self.began = time.time()
        self.cpu = [time.process_time()]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The optimizer has stepped, on a card too."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.time())
        self.cpu.append(time.process_time())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """The loss of the step that has ended."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))
            if MEASURES[0] in logs:
                self.measures.append([round(float(logs[name]), 5) for name in MEASURES])

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the record: `began`, `steps` of `[end, tokens, trained tokens, loss]`, of pairs the `MEASURES` too.

        `cpu` has the seconds of processor time of each step.
        """
        size = args.gradient_accumulation_steps
        steps = []
        for index, (end, loss) in enumerate(zip(self.ends, self.losses, strict=True)):
            batches = self.batches[index * size : (index + 1) * size]
            steps.append([end, sum(one[0] for one in batches), sum(one[1] for one in batches), loss])
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        record = {"began": self.began, "steps": steps, "measures": self.measures, "peak_cuda_bytes": peak}
        record["cpu"] = [round(after - before, 4) for before, after in pairwise(self.cpu)]
        self.path.write_text(json.dumps(record | self.more))


def real_tokens(feature: dict[str, Any]) -> int:
    """Tokens of a row without padding; LLaMA-Factory packs rows with padding, marked by 0 in their mask.

    Of a pair, those of both its rows, in the columns of LLaMA-Factory or of TRL.
    """
    if "chosen_input_ids" in feature:
        return len(feature["chosen_input_ids"]) + len(feature["rejected_input_ids"])
    if "prompt_ids" in feature:
        return 2 * len(feature["prompt_ids"]) + len(feature["chosen_ids"]) + len(feature["rejected_ids"])
    mask = feature.get("attention_mask")
    return len(feature["input_ids"]) if mask is None else sum(1 for value in mask if value)


def trained_tokens(batch: Any) -> int:
    """Those that are learned."""
    learned = batch["completion_mask"] != 0 if "completion_mask" in batch else batch["labels"] != IGNORED
    return int(learned.sum())
