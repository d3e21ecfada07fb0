"""Where a run runs, in lists, monitors and the panel."""

import pytest

from llf_core.runs import create_run, status
from llf_core.runs.listing import place_text, read_row
from llf_widgets.monitor.snapshot import describe_run

TWO = {"num_processes": 2, "strategy": "ddp"}


@pytest.mark.parametrize(
    ("config", "mirror", "text"),
    [
        ({}, None, ""),
        ({"launch": "local", "num_processes": 1, "num_nodes": 1, "strategy": "fsdp2"}, None, ""),
        (TWO, None, "2 processes (DDP)"),
        ({"num_processes": "4", "num_nodes": "1", "strategy": "fsdp2"}, None, "4 processes (FSDP2)"),
        ({"launch": "torchrun", "num_nodes": 2} | TWO, None, "2 machines, 4 processes (DDP)"),
        ({"launch": "slurm"}, None, "slurm"),
        ({"launch": "slurm", "launch_target": "short"} | TWO, None, "slurm short, 2 processes (DDP)"),
        ({"launch": "local"}, {"host": "me@box:22", "state": "running"}, "me@box:22"),
        (TWO, {"host": "box"}, "box, 2 processes (DDP)"),
        ({"num_processes": "9" * 5000, "strategy": None, "launch": None}, None, ""),
        ({"num_processes": 2, "strategy": "another"}, None, "2 processes (another)"),
    ],
)  # fmt: skip
def test_place(config, mirror, text):
    assert place_text(config, mirror) == text


def test_lists_and_monitors_say_it():
    folder = create_run("model_name_or_path: tiny\nlaunch: local\nnum_processes: 2\nstrategy: fsdp2\n", "two")
    assert read_row(folder).json()["place"] == "2 processes (FSDP2)"
    config = {"model_name_or_path": "tiny", "finetuning_type": "full"} | TWO
    assert describe_run(config, None, {"host": "box"}) == "tiny, full, box, 2 processes (DDP)"
    assert describe_run({"model_name_or_path": "tiny", "finetuning_type": "full"}, None) == "tiny, full"
    status.update(folder, mirror={"host": "box", "state": "running", "since": None, "complete": False})
    assert read_row(folder).place == "box, 2 processes (FSDP2)"
