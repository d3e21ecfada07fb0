"""Several machines: what their variables mean, and what is refused before the start."""

import json
import socket

import pytest

from llf_core.config import ConfigError, RunConfig
from llf_core.launch import launch
from llf_core.launch.launchers import launch_problem, torchrun
from llf_core.launch.launchers.torchrun import keys_of_variables, run_to_join
from llf_core.runs import list_runs

NODES = {"NNODES": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29501"}
CONFIG = {"model_name_or_path": "smollm2-135m-instruct", "dataset": "llf_demo", "max_steps": 3, "use_cpu": True}


@pytest.mark.parametrize(
    ("variables", "keys"),
    [
        ({}, {}),
        ({"MASTER_ADDR": "10.0.0.1", "NODE_RANK": "1", "NNODES": "1"}, {}),
        ({"FORCE_TORCHRUN": "1"}, {"num_processes": 1}),
        ({"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}, {"num_processes": 2}),
        (NODES, {"num_processes": 1, "launch": "torchrun", "num_nodes": 2, "launch_target": "10.0.0.1:29501"}),
        (
            {"NNODES": "3", "NPROC_PER_NODE": "8"},
            {"num_processes": 8, "launch": "torchrun", "num_nodes": 3, "launch_target": "127.0.0.1:29500"},
        ),
    ],
)
def test_variables_of_llama_factory_become_keys(variables, keys, monkeypatch):
    monkeypatch.setattr(torchrun, "gpu_count", lambda: 0)
    assert keys_of_variables(variables) == keys


def refused(monkeypatch, target, rank="0", nodes=2):
    monkeypatch.setenv("NODE_RANK", rank)
    config = RunConfig.load(CONFIG | {"launch": "torchrun", "launch_target": target, "num_nodes": nodes})
    problem = launch_problem(config)
    return problem and problem.message


def test_what_cannot_meet_is_refused_before_the_start(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refused(monkeypatch, target).startswith(f"Port {taken.getsockname()[1]} of 127.0.0.1 is in use.")
        with pytest.raises(ConfigError, match="is in use"):
            launch(CONFIG | {"launch": "torchrun", "launch_target": target, "num_nodes": 2})
        assert refused(monkeypatch, target, rank="1") is None  # the first machine listens there
    assert list_runs().total == 0
    assert refused(monkeypatch, target) is None
    assert refused(monkeypatch, target, rank="2").startswith("NODE_RANK is 2 and `num_nodes` is 2.")
    assert refused(monkeypatch, "nowhere.invalid:29500").startswith("The host nowhere.invalid is unknown here.")
    assert refused(monkeypatch, "203.0.113.7:29500").startswith("203.0.113.7 is not an address of this machine")
    for wrong in (None, "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000"):
        assert "Expected HOST:PORT" in refused(monkeypatch, wrong)
    with pytest.raises(ConfigError, match="`num_nodes` is 2, but `launch: local` starts one machine"):
        RunConfig.load(CONFIG | {"num_nodes": 2})


def test_a_machine_that_joins_finds_its_run_and_compares_versions(monkeypatch, tmp_path):
    values = CONFIG | {"launch": "torchrun", "launch_target": "127.0.0.1:29777", "num_nodes": 2}
    monkeypatch.setattr(torchrun, "JOIN_SECONDS", 0.1)
    config = RunConfig.load(values)
    with pytest.raises(RuntimeError, match=r"No run that meets at 127.0.0.1:29777 was started"):
        run_to_join(config, tmp_path)
    monkeypatch.setattr(torchrun, "JOIN_SECONDS", 5.0)
    from llf_core.runs import create_run

    folder = create_run(config.yaml(defaults=True), "first", tmp_path)
    assert run_to_join(config, tmp_path).id == folder.id
    folder.env.write_text(json.dumps({"packages": {"torch": "1.0"}}))
    with pytest.raises(RuntimeError, match=r"has torch .*, the first one 1\.0"):
        run_to_join(config, tmp_path)
