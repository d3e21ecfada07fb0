"""What a trainer's process loads. One real process."""

import json
import os
import subprocess
import sys

from llf_core.runs import RunReader, read_status

# Not needed before the first step; sympy and the symbolic shapes are, by torch's own formulas for shapes.
LATER = (
    "IPython", "bitsandbytes", "llf_widgets", "matplotlib", "scipy._lib", "sklearn", "torch._dynamo.convert_frame",
    "torch._inductor", "torch.distributed.fsdp", "torch.distributed.tensor.placement_types", "torch.onnx",
    "torch.utils.tensorboard", "torchvision", "triton", "trl",
)  # fmt: skip
SCRIPT = """
import gc, json, sys
from llf_core.runs import RunWriter
from llf_core.training.main import main
metric, at_first = RunWriter.metric, []
def noted(self, step, values):
    at_first.extend(sorted(name for name, module in sys.modules.items() if module is not None) if not at_first else [])
    metric(self, step, values)
RunWriter.metric = noted
code = main([sys.argv[1]])
print(json.dumps({"code": code, "collects": gc.isenabled(), "at_first": at_first}))
"""


def start(folder):
    """What a trainer's process says of itself; it must have finished."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, folder.path], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["code"] == 0
    return said


def losses(folder):
    return [loss.hex() for loss in RunReader(folder).metrics().values("loss").tolist()]


def test_a_step_that_needs_the_compiler_is_the_same_too(make_run, trained):
    """Checkpointed layers ask torch's compiler to leave them alone, and get the whole of it."""
    folder, changes = make_run(max_steps=1, gradient_checkpointing=True), {"gradient_checkpointing": True}
    told = start(folder)
    assert "torch._dynamo.convert_frame" in told["at_first"]
    here, _ = trained(max_steps=1, **changes)
    assert losses(folder) == losses(here)


def test_a_trainer_loads_what_its_first_step_needs_and_tells_its_phases(make_run, trained):
    folder = make_run(max_steps=1)
    said = start(folder)
    assert said["collects"] is True
    assert len(said["at_first"]) > 1000
    assert [name for name in LATER if name in said["at_first"]] == []
    assert read_status(folder).state == "finished"
    # The same numbers as in this process, which defers nothing.
    here, _ = trained(max_steps=1)
    assert losses(folder) == losses(here)
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
        ["phase", "saving"],
        ["state", "finished"],
    ]
