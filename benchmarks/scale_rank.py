"""One process of a run of `benchmarks.scale`, which keeps its peak: `python -m benchmarks.scale_rank RUN FILE`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.runs import RunFolder
from llf_core.stages.base import loop
from llf_core.training import session
from llf_core.training.past_run import peak_memory, reset_peak

if TYPE_CHECKING:
    import torch
    from torch import nn

    from llf_core.estimate.past_runs import PastRun
    from llf_core.stages.base.context import TrainingContext

LOOP: Any = loop
SESSION: Any = session
SHARD = LOOP.shard


def shard(model: nn.Module, device: torch.device, **how: bool) -> None:
    """Shard the model; the peak of the steps is not that of the whole model before."""
    SHARD(model, device, **how)
    reset_peak(device.type)


def keep_peak(context: TrainingContext, *, checkpointing: bool, measured: bool = False) -> PastRun | None:
    """Write this process's peak of the steps, in place of an entry of the table of past runs."""
    del checkpointing, measured
    Path(f"{sys.argv[2]}.{os.environ.get('RANK', '0')}").write_text(json.dumps(peak_memory(context.plan.device)))
    return None


if __name__ == "__main__":
    LOOP.shard, SESSION.add_to_past_runs = shard, keep_peak
    sys.exit(session.run_attempt(RunFolder(Path(sys.argv[1])), 1))
