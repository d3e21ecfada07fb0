# ruff: noqa: ARG002 - a callback takes what the Trainer passes
"""What a trainer built on `transformers.Trainer` did, step by step, seen through its callbacks.

Works with every version of transformers that the contenders bring along. Tokens are counted where batches are made:
the Trainer makes one batch ahead, so batches are dealt to steps afterwards, in order.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

IGNORED = -100


class Recorder(TrainerCallback):
    """Notes the end and the loss of each optimizer step, and the tokens of each micro-batch.

    Args:
        path: where the record is written when training ends.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.batches: list[tuple[int, int]] = []
        self.ends: list[float] = []
        self.losses: list[float] = []
        self.began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        """Puts a counter around the collator, which is all that a batch passes through in this process."""
        # What accelerate wraps is what makes the batches.
        loader = getattr(train_dataloader, "base_dataloader", train_dataloader)
        collate = loader.collate_fn

        def counting(features: list[dict[str, Any]]) -> Any:
            tokens = sum(real_tokens(feature) for feature in features)
            batch = collate(features)
            self.batches.append((tokens, int((batch["labels"] != IGNORED).sum())))
            return batch

        loader.collate_fn = counting
        self.began = time.time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The optimizer has stepped."""
        self.ends.append(time.time())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """The loss of the step that has ended."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the record: `began`, and `steps` of `[end, tokens, trained tokens, loss]`."""
        size = args.gradient_accumulation_steps
        steps = []
        for index, (end, loss) in enumerate(zip(self.ends, self.losses, strict=True)):
            batches = self.batches[index * size : (index + 1) * size]
            steps.append([end, sum(one[0] for one in batches), sum(one[1] for one in batches), loss])
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        self.path.write_text(json.dumps({"began": self.began, "steps": steps, "peak_cuda_bytes": peak}))


def real_tokens(feature: dict[str, Any]) -> int:
    """Tokens of a row without padding; LLaMA-Factory packs rows with padding, marked by 0 in their mask."""
    mask = feature.get("attention_mask")
    return len(feature["input_ids"]) if mask is None else sum(1 for value in mask if value)
