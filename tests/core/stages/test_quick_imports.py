"""What a trainer's process loads. One real process."""

import json
import os
import subprocess
import sys

import pytest

from llf_core.config import RunConfig
from llf_core.runs import RunReader, read_status
from llf_core.stages.quick_imports import needs_bitsandbytes

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


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, False),
        ({"optim": "adafactor"}, False),
        ({"optim": "adamw_8bit"}, True),
        ({"optim": "lion_32bit"}, True),
        ({"optim": "rmsprop_bnb"}, True),
        ({"quantization_bit": 4}, True),
        ({"model_name_or_path": "nobody/has-this"}, True),
    ],
)
def test_bitsandbytes_is_there_where_a_run_may_need_it(settings, tmp_path, monkeypatch, changes, needed):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert needs_bitsandbytes(RunConfig.load(settings | changes)) is needed


@pytest.mark.parametrize(
    ("config", "needed"), [({"quantization_config": {"quant_method": "bitsandbytes"}}, True), ([], True), ({}, False)]
)
def test_a_model_may_be_stored_quantized(settings, tmp_path, config, needed):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert needs_bitsandbytes(RunConfig.load(settings | {"model_name_or_path": str(tmp_path)})) is needed
