"""Devices and precision without torch, as the trainer finds them with torch."""

import json
import stat
from pathlib import Path

import pytest

from llf_core.config import RunConfig
from llf_core.estimate import Device, device_speed, devices
from llf_core.estimate.devices import default_threads, device_of, find_devices, precision_of, probe_file, probe_key
from llf_core.launch.environment import usable_cpus

CPU = Device("cpu", "a CPU", 1, 1)


def test_the_cpu_is_last_and_its_free_memory_is_at_most_what_it_has() -> None:
    last = find_devices()[-1]
    assert last.kind == "cpu"
    assert 0 < last.free <= last.total


def test_nvidia_smi_is_asked_where_the_library_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(
        "#!/bin/sh\necho 'NVIDIA A100-SXM4-40GB, 40960, 40000, 8.0'\necho 'Tesla T4, 15360, 15000, 7.5'\n"
    )
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(devices, "_ask_library", lambda: None)
    monkeypatch.setattr(devices, "_is_cpu_build", lambda: False)
    monkeypatch.setattr(devices, "QUERY_SECONDS", 120.0)  # on a machine that others use too
    devices._gpus.cache_clear()
    first, second, cpu = find_devices()
    assert first == Device("cuda", "NVIDIA A100-SXM4-40GB", 40960 << 20, 40000 << 20, bf16=True, count=2)
    assert (second.name, second.bf16, cpu.kind) == ("Tesla T4", False, "cpu")
    for visible, names in {"1": ["Tesla T4"], "": [], "-1": [], "1,0": ["Tesla T4", first.name], "7": [],
                           "0,-1,1": [first.name], "1,9,0": ["Tesla T4"], "0,": [first.name]}.items():  # fmt: skip
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [one.name for one in find_devices()[:-1]] == names, visible
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for broken in ("exit 9", "echo nonsense", "echo 'a, b, c, d'"):
        command.write_text(f"#!/bin/sh\n{broken}\n")
        devices._gpus.cache_clear()
        assert len(find_devices()) == 1, broken
    devices._gpus.cache_clear()


def test_the_device_of_a_config() -> None:
    gpu = Device("cuda", "a GPU", 1, 1, bf16=True)
    assert device_of(RunConfig.load({"dataset": "llf_demo"}), (gpu, CPU)) is gpu
    assert device_of(RunConfig.load({"dataset": "llf_demo", "use_cpu": True}), (gpu, CPU)) is CPU


@pytest.mark.parametrize(
    ("keys", "width", "autocast"),
    [({"bf16": True}, 2, True), ({"pure_bf16": True}, 2, False), ({"fp16": True}, 2, True)],
)
def test_a_precision_that_the_config_sets(keys: dict[str, bool], width: int, autocast: bool) -> None:
    found = precision_of(RunConfig.load({"dataset": "llf_demo", **keys}), Device("cuda", "a GPU", 1, 1, bf16=True))
    assert (found.width, found.autocast) == (width, autocast)


@pytest.mark.parametrize(("speedup", "width"), [(1.09, 4), (1.1, 2), (5.0, 2)])
def test_the_measurement_of_the_last_run_decides_on_a_cpu(speedup: float, width: int) -> None:
    probe_file().parent.mkdir(parents=True)
    probe_file().write_text(json.dumps({probe_key("AVX2", usable_cpus()): speedup, "another CPU": 9.0}))
    found = precision_of(RunConfig.load({"dataset": "llf_demo"}), CPU)
    assert (found.width, found.autocast) == (width, width == 2)
    assert f"{speedup:.1f} times" in found.reason


def test_the_threads_of_the_environment_are_those_of_the_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, threads in {"3": 3, "3,2": 3, "0": None, "\u00b2": None, "9" * 5000: None, "": None}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert default_threads() == (threads or usable_cpus()), value
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    probe_file().parent.mkdir(parents=True)
    probe_file().write_text(json.dumps({probe_key("AVX2", 3): 5.0}))
    assert "5.0 times" in precision_of(RunConfig.load({"dataset": "llf_demo"}), CPU).reason


def test_a_damaged_speed_is_measured_again() -> None:
    path = probe_file().with_name("cpu_speed.json")
    path.parent.mkdir(parents=True)
    device_speed.cpu_values.cache_clear()
    first = device_speed.cpu_values()
    path.write_text(path.read_text().replace(str(round(first)), "1" + "0" * 18))
    device_speed.cpu_values.cache_clear()
    assert device_speed.cpu_values() < 1e14
    assert json.loads(path.read_text()).popitem()[1] < 1e14
    device_speed.cpu_values.cache_clear()


def test_it_is_the_precision_of_the_trainer() -> None:
    from llf_core.models import plan_device

    config = RunConfig.load({"dataset": "llf_demo", "use_cpu": True})
    plan = plan_device(config)
    found = precision_of(config, CPU)
    assert (found.width == 2, found.autocast) == (plan.dtype == "bfloat16", plan.autocast is not None)
