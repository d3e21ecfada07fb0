"""What a monitor is told of the device."""

from __future__ import annotations

import pytest
import torch

from llf_core.runs import RunReader, read_status
from llf_core.runs.charts import logged_charts
from llf_core.training.metrics_callback import GpuLoad

NAMES = {"gpu/utilization", "gpu/memory", "gpu/temperature"}


def test_a_run_logs_how_busy_full_and_hot_a_card_is(trained, device):
    folder, code = trained(max_steps=3)
    assert code == 0, read_status(folder).reason
    found = RunReader(folder).metrics()
    titles = {one.chart.title for one in logged_charts(found.names)}
    assert found.values("memory").min() > 0
    if device.type == "cpu":
        assert not NAMES & set(found.names)
        assert not {title for title in titles if title.startswith("GPU")}
        return
    assert "gpu/memory" in found.names
    assert "GPU" in titles
    assert found.values("memory").max() < 2 * torch.cuda.max_memory_allocated() + 1


def test_the_driver_is_asked_for_what_it_tells(device, note):
    load = GpuLoad(device)
    found = load.read()
    assert load.read() == {}  # not twice a second
    if device.type == "cpu":
        assert found == {}
        return
    assert 0 < found["gpu/memory"] <= 1
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed.")
    note(", ".join(f"{name} {value:.3g}" for name, value in found.items()))
    assert 0 <= found.get("gpu/utilization", 0) <= 1  # a part of a GPU (MIG) does not tell it
    assert 0 < found.get("gpu/temperature", 40) < 120
