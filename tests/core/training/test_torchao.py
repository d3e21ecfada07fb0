"""torchao's optimizers in the real trainer, which finds torchao in a folder of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llf_core.config.rules.process import has_compiler
from llf_core.runs import Checkpoints, status
from tests.core.training.forked_trainer import losses

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000), pytest.mark.launches]
ROOT = Path(__file__).parents[3]
ONE_BATCH = {
    "finetuning_type": "full", "per_device_train_batch_size": 24, "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "constant", "use_cpu": True, "max_steps": 4, "save_steps": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with the newest torchao and nothing else."""
    folder = tmp_path_factory.mktemp("torchao")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, "torchao"]
    subprocess.run(pip, check=True)
    return folder


@pytest.fixture
def train(packages, tmp_path_factory, monkeypatch):
    """`train(folder, fault="")`: the exit code of a trainer, which SIGKILL ends at a fault point."""
    monkeypatch.syspath_prepend(packages)  # so that the config is accepted here
    compiled = tmp_path_factory.getbasetemp() / "compiled"
    given = {"PYTHONPATH": f"{packages}:{ROOT}", "TORCHINDUCTOR_CACHE_DIR": str(compiled), "OMP_NUM_THREADS": "1"}

    def start(folder, fault=""):
        command = [sys.executable, "-m", "llf_core.training.main", folder.path]
        with folder.log.open("ab") as log:
            environment = os.environ | given | ({"LLF_FAULT": fault} if fault else {})
            return subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode

    return start


@pytest.mark.skipif(not has_compiler(), reason="torchao compiles its optimizers, and there is no C++ compiler")
@pytest.mark.parametrize("name", ["adamw_torch_8bit", "adamw_torch_4bit"])
def test_the_loss_of_one_batch_falls_and_a_killed_run_repeats_it(train, make_run, name):
    whole, killed = (make_run(**ONE_BATCH, optim=name) for _ in range(2))
    assert train(whole) == 0, whole.log.read_text()[-2000:]
    found = [float.fromhex(value) for _, value in sorted(losses(whole)["loss"].items())]
    assert len(found) == 4
    assert found == sorted(found, reverse=True)
    assert train(killed, "metrics.append:4") == -signal.SIGKILL, killed.log.read_text()[-2000:]
    assert (Checkpoints(killed).list(), sorted(losses(killed)["loss"])) == ([2], [1, 2, 3])
    status.begin_attempt(killed, 2)
    assert train(killed) == 0, killed.log.read_text()[-2000:]
    assert losses(killed) == losses(whole)
