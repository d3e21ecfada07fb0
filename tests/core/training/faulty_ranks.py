"""One of two processes that train a run; the last one is slow, and at some steps differs from the other."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from llf_core.runs import RunFolder
from llf_core.stages.sft import SFT
from llf_core.training.session import run_attempt
from llf_core.training.trainer import RunTrainer

folder, slow, divisor_step, weight_step = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
loss_sum, get_batch_samples = SFT.loss_sum, RunTrainer.get_batch_samples


def slow_loss_sum(self, model, *args):
    time.sleep(slow * model.training)
    return loss_sum(self, model, *args)


def faulty_batches(self, *args):
    batches, units = get_batch_samples(self, *args)
    step = self.state.global_step + 1
    if step == divisor_step:
        self.loss_units = units = units + 1
    if step == weight_step:  # one bit of one weight
        weight = next(one for one in self.model.parameters() if one.requires_grad).data
        weight.view(-1)[0] = weight.view(-1)[0].nextafter(weight.new_tensor(2.0))
    return batches, units


if os.environ["RANK"] == "1":
    SFT.loss_sum, RunTrainer.get_batch_samples = slow_loss_sum, faulty_batches
sys.exit(run_attempt(RunFolder(Path(folder)), 1))
