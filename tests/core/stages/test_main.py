"""What a trainer's process loads. One real process."""

import json
import os
import subprocess
import sys

from llf_core.runs import RunReader, read_status

# Not needed before the first step; sympy and the symbolic shapes are, by torch's own formulas for shapes.
LATER = (
    "IPython", "bitsandbytes", "llf_widgets", "matplotlib", "scipy", "sklearn", "torch._dynamo.convert_frame",
    "torch._inductor", "torch.distributed.fsdp", "torch.distributed.tensor.placement_types", "torch.onnx",
    "torch.utils.tensorboard", "torchvision", "triton", "trl",
)  # fmt: skip
SCRIPT = """
import gc, json, sys
from llf_core.runs import RunWriter
from llf_core.stages.main import main
metric, at_first = RunWriter.metric, []
def noted(self, step, values):
    at_first.extend(sorted(name for name, module in sys.modules.items() if module is not None) if not at_first else [])
    metric(self, step, values)
RunWriter.metric = noted
code = main([sys.argv[1]])
print(json.dumps({"code": code, "collects": gc.isenabled(), "at_first": at_first}))
"""


def test_a_trainer_loads_what_its_first_step_needs_and_tells_its_phases(make_run, trained):
    folder = make_run(max_steps=1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, folder.path], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["code"], said["collects"]) == (0, True)
    assert len(said["at_first"]) > 1000
    assert [name for name in LATER if name in said["at_first"]] == []
    assert read_status(folder).state == "finished"
    # The same numbers as in this process, which defers nothing.
    here, _ = trained(max_steps=1)
    (there_loss,), (here_loss,) = (RunReader(one).metrics().values("loss").tolist() for one in (folder, here))
    assert there_loss.hex() == here_loss.hex()
    told = {"phase": ("name", "what"), "data": (), "model": (), "state": ("state",)}
    events = [event for event in RunReader(folder).events() if event["type"] in told]
    assert [[event["type"], *(event[name] for name in told[event["type"]] if name in event)] for event in events] == [
        ["phase", "environment"],
        ["phase", "model", "find"],
        ["phase", "data"],
        ["data"],
        ["phase", "model", "load"],
        ["model"],
        ["phase", "first step"],
        ["state", "running"],
        ["state", "finished"],
    ]
