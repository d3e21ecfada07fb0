"""One of several processes that learn from their own answers together, over gloo; prints what came of it.

The endpoint scores how many letters an answer has. The first process's folder is the run, the others' are thrown away.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4]))
from llf_core.config import RunConfig
from llf_core.models import device as devices
from llf_core.models import plan_device
from llf_core.runs import RunReader, RunWriter, create_run
from llf_core.stages.base.stage import make_stage
from llf_core.training.load_context import load_context
from llf_core.training.make_trainer import make_trainer
from llf_core.training.metrics_callback import MetricsCallback

devices.bf16_speedup = lambda threads: 0.5
rank = int(os.environ["RANK"])
home = Path(os.environ["HOME_OF_TEST"]) / str(rank)
os.environ["LLF_HOME"] = str(home)
config = RunConfig.load(json.loads(os.environ["SETTINGS"]))
folder = create_run(config.yaml(defaults=True), "rank")
context = load_context(folder, config, RunWriter(folder, 1), plan_device(config))
progress = MetricsCallback(folder, RunWriter(folder, 1))
trainer = make_trainer(context, make_stage(config, context), progress)
stage = trainer.stage
trainer.train()
trained = [one.detach() for one in context.model.parameters() if one.requires_grad]
columns = RunReader(folder).metrics()
print(
    json.dumps(
        {
            "prompts": [tuple(prompt) for prompt in stage.rollout.prompts],
            "answers": stage.rollout.answers,
            "asked": stage.prompts_used,
            "weights": hashlib.sha256(b"".join(one.numpy().tobytes() for one in trained)).hexdigest(),
            "coefficient": stage.controller.coefficient,
            "moments": [stage.moments.count, stage.moments.mean, stage.moments.squares],
            "advantages": stage.rollout.advantages.tolist(),
            "reward": columns.values("reward").tolist(),
        }
    ),
    flush=True,
)
