"""Real trainers under their supervisors, two of them on one card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llf_core.runs import read_status
from llf_core.runs.folder import RunFolder
from tests.gpu.conftest import losses, resolved
from tests.processes import end, processes_of

ROOT = Path(__file__).parents[2]


def test_two_runs_of_llf_train_share_the_device(settings, tmp_path, llf_home, device, trained):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings | {"threads": 1}))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", "from llf_core.cli import main; main()", "train", str(path)]
    logs = [tmp_path / f"{name}.txt" for name in ("one", "other")]
    started = []
    for log in logs:
        with log.open("w") as file:
            started.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file, cwd=tmp_path))
    try:
        codes = [process.wait(timeout=200) for process in started]
    finally:
        for process in started:
            process.kill()
        end(processes_of(llf_home))
    assert codes == [0, 0], [log.read_text()[-1500:] for log in logs]
    folders = [RunFolder(path) for path in sorted((llf_home / "runs").iterdir()) if path.is_dir()]
    assert len(folders) == 2
    expected, _ = trained(threads=1)
    for folder in folders:
        assert read_status(folder).state == "finished"
        assert resolved(folder)["device"] == device.type
        assert json.loads((folder.output / "adapter_config.json").read_text())["peft_type"] == "LORA"
        assert losses(folder) == pytest.approx(losses(expected), rel=1e-6 if device.type == "cpu" else 5e-3)
