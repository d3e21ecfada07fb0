import json
from importlib import metadata

import pytest
import torch

from llf_core.launch.environment import usable_cpus
from llf_core.models import ModelError, device, plan_device


@pytest.fixture
def speedup(monkeypatch):
    """`speedup(3.0)`: what timing bfloat16 gives; counts how often it is timed."""
    calls = []

    def set_(value):
        monkeypatch.setattr(device, "time_bf16", lambda: calls.append(1) or value)
        return calls

    return set_


@pytest.mark.parametrize(
    ("value", "dtype", "autocast"), [(3.0, "bfloat16", "bfloat16"), (1.05, "float32", None), (0.4, "float32", None)]
)
def test_cpu_takes_bfloat16_only_where_it_is_clearly_faster(config, speedup, value, dtype, autocast):
    speedup(value)
    plan = plan_device(config())
    assert (plan.device, plan.dtype, plan.autocast) == ("cpu", dtype, autocast)
    assert f"{value:.1f} times as fast" in plan.reason


def test_probe_is_timed_once_for_chip_torch_and_threads(config, speedup, home):
    calls = speedup(2.0)
    plan_device(config())
    plan_device(config())
    assert len(calls) == 1
    (key,) = json.loads((home / "cache/probe.json").read_text())
    assert f"torch {metadata.version('torch')} |" in key
    assert f"{torch.get_num_threads()} threads" in key
    plan_device(config(threads=torch.get_num_threads() + 1))
    assert len(calls) == 2


def test_a_damaged_probe_is_timed_again(config, speedup, home):
    calls = speedup(2.0)
    (home / "cache").mkdir(parents=True)
    (home / "cache/probe.json").write_text('{"cut')
    plan_device(config())
    assert len(calls) == 1


@pytest.mark.parametrize("bad", ["Infinity", "NaN", "-1.0", "true", "1e9", "1" + "0" * 400, '"fast"', "0"])
def test_a_damaged_measurement_is_timed_again(config, speedup, home, bad):
    calls = speedup(2.0)
    plan_device(config())
    (key,) = json.loads((home / "cache/probe.json").read_text())
    (home / "cache/probe.json").write_text(f'{{"{key}": {bad}}}')
    assert "timed 2.0 times" in plan_device(config()).reason
    assert len(calls) == 2
    assert json.loads((home / "cache/probe.json").read_text()) == {key: 2.0}


def test_a_measurement_that_cannot_be_kept_is_made_again(config, speedup, home):
    calls = speedup(2.0)
    home.mkdir(exist_ok=True)
    (home / "cache").write_text("no folder")
    for _ in range(2):
        assert plan_device(config()).dtype == "bfloat16"
    assert len(calls) == 2


def test_timing_gives_a_ratio_by_few_and_small_products(monkeypatch):
    product, sizes = torch.mm, []
    monkeypatch.setattr(torch, "mm", lambda a, b: sizes.append((*a.shape, *b.shape)) or product(a, b))
    assert 0.001 < device.time_bf16() < 1000
    assert sizes == [(512,) * 4] * 14


@pytest.mark.parametrize(
    ("keys", "dtype", "autocast"),
    [({"bf16": True}, "bfloat16", "bfloat16"), ({"pure_bf16": True}, "bfloat16", None)],
)
def test_asked_precision_is_taken_without_timing(config, speedup, keys, dtype, autocast):
    calls = speedup(0.1)
    plan = plan_device(config(**keys))
    assert (plan.dtype, plan.autocast, calls) == (dtype, autocast, [])
    assert plan.torch_dtype is torch.bfloat16


def test_float16_needs_a_gpu(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match="fp16: true needs a GPU"):
        plan_device(config(fp16=True, use_cpu=False))


@pytest.mark.parametrize(("bf16", "dtype"), [(True, "bfloat16"), (False, "float16")])
def test_cuda_is_taken_where_there_is_one(config, monkeypatch, bf16, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU X")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)
    plan = plan_device(config(use_cpu=False))
    assert (plan.device, plan.dtype, plan.autocast) == ("cuda", dtype, dtype)
    assert plan.reason.startswith("GPU X; ")
    assert plan_device(config(use_cpu=True, bf16=True)).device == "cpu"


@pytest.mark.parametrize(("rank", "chosen"), [("1", [1]), ("4", []), ("", []), ("x", [])])
def test_each_of_several_processes_has_a_card_of_its_own(config, monkeypatch, rank, chosen):
    set_ = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU X")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", set_.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: set_[-1] if set_ else 0)
    monkeypatch.setenv("LOCAL_RANK", rank)
    plan = plan_device(config(use_cpu=False))
    assert set_ == chosen
    assert plan.place == (1 if chosen else 0)  # what accelerate compares the quantized weights' place with
    assert plan_device(config(use_cpu=True, bf16=True)).place == "cpu"


def test_bf16_on_a_gpu_without_it_is_an_error(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU X")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(ModelError, match=r"GPU X does not. Set fp16: true"):
        plan_device(config(use_cpu=False, bf16=True))


def test_mps_computes_in_float32(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    plan = plan_device(config(use_cpu=False))
    assert (plan.device, plan.dtype, plan.autocast) == ("mps", "float32", None)


def test_threads_are_the_configs_then_the_environments_then_the_grant(config, speedup, monkeypatch):
    speedup(1.0)
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert plan_device(config(threads=2)).threads == torch.get_num_threads() == 2
        assert plan_device(config()).threads == 3
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert plan_device(config()).threads == usable_cpus()
    finally:
        torch.set_num_threads(before)
