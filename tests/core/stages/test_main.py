"""What a trainer's process loads. One real process."""

import json
import os
import subprocess
import sys

from llf_core.runs import RunReader, read_status

SCRIPT = """
import gc, json, sys
from llf_core.stages.main import main
code = main([sys.argv[1]])
print(json.dumps({"code": code, "bitsandbytes": sys.modules.get("bitsandbytes", "?"), "collects": gc.isenabled()}))
"""


def test_a_run_without_quantized_weights_loads_no_bitsandbytes_and_tells_its_phases(make_run):
    folder = make_run(max_steps=1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, folder.path], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"code": 0, "bitsandbytes": None, "collects": True}
    assert read_status(folder).state == "finished"
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
