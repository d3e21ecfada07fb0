"""Loss on held-out rows, in float32 and by the plain path: `MODEL_FOLDER ROWS.jsonl OUT.json NAME=ADAPTER …`.

`NAME=` without a folder is the model itself, before any training.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from peft import PeftModel
from transformers import AutoModelForCausalLM

from benchmarks.runners.trainer import rows


@torch.no_grad()
def mean_loss(model: torch.nn.Module, held_out: list[dict[str, list[int]]]) -> float:
    """The mean negative log-likelihood of all supervised tokens, one row at a time."""
    total, count = 0.0, 0
    for row in held_out:
        labels = torch.tensor(row["labels"][1:])
        logits = model(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0, :-1]
        total += float(F.cross_entropy(logits[labels != -100].float(), labels[labels != -100], reduction="sum"))
        count += int((labels != -100).sum())
    return total / count


def tuned(folder: str, output: str) -> torch.nn.Module:
    """What a contender has saved, in float32; without a folder of its own, the model itself."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if output and (Path(output) / "adapter_config.json").exists():
        model = PeftModel.from_pretrained(model, output)
    elif output:
        # Whole models in the precision that the base is stored in, in which LLF writes them: alike for all.
        model = AutoModelForCausalLM.from_pretrained(output, dtype=torch.bfloat16).float()
    return model.eval()


def main() -> None:
    folder, file, out, *named = sys.argv[1:]
    held_out, losses = rows(file), {}
    for name, output in (one.split("=", 1) for one in named):
        losses[name] = mean_loss(tuned(folder, output), held_out)
    Path(out).write_text(json.dumps(losses))


if __name__ == "__main__":
    main()
