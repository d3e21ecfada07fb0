"""Every stage in two processes beside the same run in one: with the same global batch in float32 they train alike."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llf_core.config import RunConfig
from llf_core.estimate.devices import probe_file, probe_key
from llf_core.runs import RunReader, create_run, read_status
from llf_core.user_functions.function_source import write_code
from tests.core.stages.ppo.conftest import reward_adapter

__all__ = ["reward_adapter"]

pytestmark = pytest.mark.timeout(290)
ANSWERS = [{"instruction": f"say {i}", "output": f"word {i * 7 % 13} " * (1 + i % 4)} for i in range(16)]
PAIRS = [
    {"instruction": f"say {i}", "chosen": f"It is {i}." + " Sure." * (i % 3), "rejected": "No idea" + "!" * i}
    for i in range(16)
]
MARKED = [
    {"instruction": f"say {i // 2}", "output": f"It is {i}." if i % 3 else "No idea" + "!" * i, "kto_tag": i % 3 > 0}
    for i in range(16)
]
SAMPLED = {"stage": "ppo", "max_new_tokens": 6, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "ppo_score_norm": True}
GROUPS = {
    "reward_functions": "share", "num_generations": 4, "max_completion_length": 6, "temperature": 1.0, "top_p": 1.0,
    "top_k": 0, "val_size": 4,
}  # fmt: skip
REWARDS = {"share": "def share(answer):\n    return answer.count('a') / max(len(answer), 1)\n"}
STAGES = {
    "dpo": (PAIRS, {"stage": "dpo"}),
    "dpo-steps": (PAIRS, {"stage": "dpo", "precompute_ref_log_probs": False, "gradient_accumulation_steps": 2,
                          "pref_bco_weight": 0.5}),
    "rm": (PAIRS, {"stage": "rm"}),
    "kto": (MARKED, {"stage": "kto", "quantization_bit": 4}),
    "kd": (ANSWERS, {"stage": "kd", "kd_alpha": 0.5, "finetuning_type": "full", "compute_accuracy": True}),
    "grpo": (ANSWERS, {"stage": "grpo"} | GROUPS | {"num_iterations": 2}),
    "rloo": (ANSWERS, {"stage": "rloo", "gradient_accumulation_steps": 2, "beta": 0.1} | GROUPS),
    "ppo": (ANSWERS, SAMPLED | {"reward_model_type": "lora", "ppo_models": "shared", "ppo_buffer_size": 2}),
    "ppo-separate": (ANSWERS, SAMPLED | {"reward_model_type": "function", "reward_functions": "share", "ppo_epochs": 2,
                                         "ppo_models": "separate", "gradient_accumulation_steps": 2}),
}  # fmt: skip


def settings_of(stage, processes, model, reward_adapter, folder):
    """A run of 13 examples in global batches of 4: the last one of an epoch leaves one of two processes none."""
    rows, changes = STAGES[stage]
    data = folder / f"{stage}.json"
    data.write_text(json.dumps(rows))
    settings = {
        "model_name_or_path": str(model), "dataset": str(data), "finetuning_type": "lora", "lora_rank": 4,
        "cutoff_len": 64, "learning_rate": 1e-3, "max_steps": 6, "logging_steps": 1, "save_steps": 100, "use_cpu": True,
        "val_size": 3, "eval_strategy": "steps", "eval_steps": 3, "per_device_eval_batch_size": 4 // processes,
        "threads": 1, "num_processes": processes, "per_device_train_batch_size": 4 // processes,
    }  # fmt: skip
    if "num_generations" in changes:  # TRL's evaluation is a mean of means of batches
        settings["per_device_eval_batch_size"] = 8 // processes
    if "kd_alpha" in changes:
        settings["teacher_model"] = str(model)
    if changes.get("reward_model_type") == "lora":
        settings["reward_model"] = str(reward_adapter)
    return settings | changes


@pytest.fixture(scope="module")
def runs(tiny_model_dir, reward_adapter, fork_server, tmp_path_factory):
    """Folders of all runs by stage and number of processes, trained by one process and by two."""
    root = tmp_path_factory.mktemp("stages")
    patch = pytest.MonkeyPatch()
    patch.setenv("LLF_HOME", str(root / "home"))
    probe_file().parent.mkdir(parents=True)
    probe_file().write_text(json.dumps({probe_key(torch.backends.cpu.get_cpu_capability(), 1): 1.0}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    found, processes = {}, []
    for world in (1, 2):
        for stage in STAGES:
            config = RunConfig.load(settings_of(stage, world, tiny_model_dir, reward_adapter, root))
            found[stage, world] = create_run(
                config.yaml(defaults=True), stage, fill=lambda new: write_code(new.code, REWARDS)
            )
        names = [str(found[stage, world].path) for stage in STAGES]
        command = [str(fork_server.python), str(Path(__file__).with_name("rank_runs.py")), *names]
        for rank in range(world):
            numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            environment = os.environ | (told | numbers if world > 1 else {"OMP_NUM_THREADS": "1"})
            processes.append(subprocess.Popen(command, env=environment, stdout=-1, stderr=subprocess.STDOUT))
    try:
        said = [one.communicate(timeout=280)[0].decode() for one in processes]
    finally:
        for one in processes:
            one.kill()
        patch.undo()
    return found, said


def values(folder, name):
    columns = RunReader(folder).metrics()
    return dict(zip(columns.steps(name).tolist(), columns.values(name).tolist(), strict=True))


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_as_one_does(runs, stage):
    folders, said = runs
    alone, together = (folders[stage, world] for world in (1, 2))
    states = [read_status(one) for one in (alone, together)]
    assert [one.state for one in states] == ["finished"] * 2, (*(one.reason for one in states), said[-1][-3000:])
    rewards = {one for one in RunReader(alone).metrics().names if "reward" in one}  # differences of larger numbers
    rewards.discard("eval_reward_std")  # the mean of those of the batches of one process
    for name in {"loss", "eval_loss", "tokens"} | rewards:
        expected = values(alone, name)
        assert len(expected) >= (1 if name in rewards else 2)
        near = {"abs": 1e-5} if name in rewards else {"rel": 1e-6}
        if name not in rewards and STAGES[stage][1]["stage"] in {"grpo", "rloo", "ppo"}:
            near |= {"abs": 1e-6}  # terms of about 1 that cancel each other
        assert values(together, name) == {step: pytest.approx(one, **near) for step, one in expected.items()}, name
    one, two = (load_file(*folder.output.glob("*model.safetensors")) for folder in (alone, together))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) <= 1e-5
