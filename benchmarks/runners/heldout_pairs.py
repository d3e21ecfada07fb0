"""DPO on held-out pairs, in float32 and by the plain path: `MODEL_FOLDER PAIRS.jsonl BETA OUT.json NAME=ADAPTER …`.

Written are, by name, the `loss`, the `margin` of the rewards and the `accuracy`. The model itself is the reference.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name

from benchmarks.runners.heldout import tuned
from benchmarks.runners.trainer import rows


@torch.no_grad()
def log_probs(model: torch.nn.Module, pairs: list[dict[str, list[int]]]) -> torch.Tensor:
    """`[pairs, 2]`: of the better and of the worse answer of each pair, one sequence at a time."""
    found = []
    for pair in pairs:
        start = len(pair["prompt_ids"])
        for answer in (pair["chosen_ids"], pair["rejected_ids"]):
            ids = torch.tensor([pair["prompt_ids"] + answer])
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1).logits[0, :-1]
            found.append(-F.cross_entropy(logits.double(), ids[0, start:], reduction="sum"))
    return torch.stack(found).view(-1, 2)


def main() -> None:
    folder, file, beta, out, *named = sys.argv[1:]
    pairs, found = rows(file), {}
    reference = log_probs(tuned(folder, ""), pairs)
    for name, output in (one.split("=", 1) for one in named):
        rewards = float(beta) * (log_probs(tuned(folder, output), pairs) - reference)
        margins = rewards[:, 0] - rewards[:, 1]
        loss, accuracy = -F.logsigmoid(margins).mean(), (margins > 0).double().mean()
        found[name] = {"loss": float(loss), "margin": float(margins.mean()), "accuracy": float(accuracy)}
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
