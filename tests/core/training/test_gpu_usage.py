"""The numbers of a GPU, as its driver tells them; the driver is made up here, see `tests/gpu/test_monitor.py`."""

import pytest
import torch

from llf_core.models.memory import memory_in_use
from llf_core.training import metrics_callback
from llf_core.training.metrics_callback import GpuLoad


@pytest.fixture
def driver(monkeypatch):
    """A driver that tells all of a card; returns the clock, which stands still."""
    now = [100.0]
    monkeypatch.setattr(metrics_callback.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 37)
    monkeypatch.setattr(torch.cuda, "temperature", lambda device: 61)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 << 30, 80 << 30))
    return now


def test_a_card_tells_how_busy_full_and_hot_it_is_at_most_once_a_second(driver):
    load = GpuLoad(torch.device("cuda", 0))
    assert load.read() == {"gpu/utilization": 0.37, "gpu/memory": 0.75, "gpu/temperature": 61.0}
    driver[0] += 0.5
    assert load.read() == {}
    driver[0] += 0.6
    assert len(load.read()) == 3


def test_what_the_driver_does_not_tell_is_left_out_and_not_asked_again(driver, monkeypatch):
    asked = []

    def refuse(device):
        asked.append(device)
        raise ModuleNotFoundError("pynvml does not seem to be installed or it can't be imported.")

    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    load = GpuLoad(torch.device("cuda", 0))
    for _ in range(3):
        assert load.read() == {"gpu/memory": 0.75, "gpu/temperature": 61.0}
        driver[0] += 2
    assert len(asked) == 1


def test_other_devices_have_none_and_a_run_on_the_cpu_beside_a_card_logs_its_own_memory(monkeypatch):
    assert GpuLoad(torch.device("cpu")).read() == {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 0)
    assert memory_in_use(torch.device("cpu")) > 50e6
    assert memory_in_use(torch.device("cuda")) == 0
