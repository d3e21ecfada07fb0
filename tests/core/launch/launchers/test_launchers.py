"""`on`, `launch` and `launch_target`: where a run runs, in words and in keys."""

import sys
from typing import get_args

import pytest

from llf_core.config import ConfigError, RunConfig, quantizers
from llf_core.config.field_specs import field
from llf_core.launch import environment, launch, launchers
from llf_core.launch.launchers import LAUNCHERS, launch_problem
from llf_core.launch.launchers.launcher import Launcher
from llf_core.runs import list_runs
from llf_core.runs.config_file import read_config
from tests.processes import wait_for_supervisor

CONFIG = {"model_name_or_path": "smollm2-135m-instruct", "dataset": "llf_demo", "max_steps": 3}
NOTHING = [sys.executable, "-c", "print('started')"]


def test_the_key_names_the_launchers_that_exist():
    spec = field("launch")
    assert spec is not None
    assert get_args(spec.annotation) == spec.choices == tuple(LAUNCHERS)
    assert all(one.name == name and one.label and one.summary.endswith(".") for name, one in LAUNCHERS.items())


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("1 process", {"launch": "local", "launch_target": None, "num_processes": 1}),
        (" 2 Processes ", {"launch": "local", "launch_target": None, "num_processes": 2}),
        ("4 gpus", {"launch": "local", "launch_target": None, "num_processes": 4, "use_cpu": False}),
        ("local", {"launch": "local", "launch_target": None}),
    ],
)
def test_words_become_keys(text, keys, monkeypatch):
    monkeypatch.setattr(launchers, "gpu_count", lambda: 4)
    assert launchers.keys_of_place(text) == keys


@pytest.mark.parametrize("text", ["", "0 processes", "two processes", "-1 gpus", "moon", "2", "2 processes; rm -rf x"])
def test_nonsense_is_refused_before_a_run_is_made(text):
    with pytest.raises(ConfigError, match=r"Expected `2 processes`, `4 gpus`, or one of `local`"):
        launch(CONFIG, on=text)
    assert list_runs().total == 0


def test_more_gpus_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr(launchers, "gpu_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"`on` is '4 gpus'. This machine has 1 NVIDIA GPU\."):
        launch(CONFIG, on="4 gpus")
    monkeypatch.setattr(launchers.launcher, "gpu_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"`num_processes` is 3, and this machine has 2 GPUs.*Set num_processes: 2"):
        launch(CONFIG | {"num_processes": 3})
    assert list_runs().total == 0
    assert launch_problem(RunConfig.load(CONFIG | {"num_processes": 3, "use_cpu": True})) is None


def test_visible_gpus_are_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(quantizers, "has_cuda", lambda: False)
    assert environment.gpu_count() == 0
    monkeypatch.setattr(quantizers, "has_cuda", lambda: True)
    listed = [tmp_path / "0", tmp_path / "1"]
    monkeypatch.setattr(environment.Path, "iterdir", lambda _: iter(listed))
    assert environment.gpu_count() == 2
    for visible, count in (("1", 1), ("", 0), ("0,1,2", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert environment.gpu_count() == count


@pytest.mark.parametrize("target", ["-oProxyCommand=x", "a b", "a;b", "$(a)", "a\nb", "'a'", ""])
def test_a_target_is_one_word_that_no_shell_reads(target):
    with pytest.raises(ConfigError, match="launch_target"):
        RunConfig.load(CONFIG | {"launch_target": target})


def test_this_machine_has_no_target():
    with pytest.raises(ConfigError, match=r"`launch_target` is 'box', but `launch: local` has no target"):
        launch(CONFIG | {"launch_target": "box"})


def test_every_start_asks_the_launcher_of_the_config(monkeypatch):
    started = []
    reasons = []
    there = Launcher(
        name="local", label="There", summary="There.", unavailable=lambda _: reasons[0] if reasons else None,
        start=lambda folder, env, command: started.append((folder.id, env["LLF_HOME"], command)),
    )  # fmt: skip
    monkeypatch.setattr(launchers, "LAUNCHERS", {"local": there})
    run = launch(CONFIG, command=NOTHING)
    again = run.replay(command=NOTHING)
    assert [one[0] for one in started] == [run.id, again.id]
    assert all(home == str(run.folder.home) and command == NOTHING for _, home, command in started)
    reasons.append("The box is switched off.")
    for start in (lambda: launch(CONFIG), run.replay):
        with pytest.raises(ConfigError, match="The box is switched off"):
            start()
    assert list_runs().total == 2


def test_a_number_of_processes_is_stored(monkeypatch):
    monkeypatch.setattr(launchers, "gpu_count", lambda: 0)
    run = launch(CONFIG, command=NOTHING, on="2 processes")
    wait_for_supervisor(run)
    stored = read_config(run.folder.config)
    assert (stored["launch"], stored["num_processes"]) == ("local", 2)
