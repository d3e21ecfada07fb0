"""One of two processes of a sharded run, which write what they held before and after their model was sharded."""

import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3]))
from llf_core.runs import RunFolder
from llf_core.stages.base import loop
from llf_core.training.session import run_attempt

shard, folder = loop.shard, Path(sys.argv[1])


def observed(model, device, **how):
    before = sorted({one.device.type for one in (*model.parameters(), *model.buffers())})
    drawn = torch.get_rng_state().tolist()
    shard(model, device, **how)
    held = {
        "before": before,
        "drawn": drawn,
        "buffers": {name: one.tolist() for name, one in model.named_buffers()},
        "parameters": sum(one.numel() for one in model.parameters()),
    }
    (folder / f"held.{os.environ['RANK']}").write_text(json.dumps(held))


loop.shard = observed
sys.exit(run_attempt(RunFolder(folder), 1))
