"""GRPO and RLOO in a run: rewards rise, answers are written down, a run is stopped and resumed like any other."""

from __future__ import annotations

import json

import pytest

from llf_core.config import RunConfig
from llf_core.rewards import write_code
from llf_core.runs import RunReader, create_run

SHARE = "def share(answer):\n    return answer.count('a') / max(len(answer), 1)\n"


@pytest.fixture
def online(settings):
    """A config whose steps take a few tenths of a second."""
    return settings | {
        "stage": "grpo",
        "finetuning_type": "full",
        "reward_functions": "share",
        "num_generations": 4,
        "max_completion_length": 8,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "lr_scheduler_type": "constant",
        "watched_prompts": None,
    }


@pytest.fixture
def make_online(online):
    def make(code=SHARE, name="share", **changes):
        asked = {key: value for key, value in (online | changes).items() if value is not None}
        config = RunConfig.load(asked)
        return create_run(
            config.yaml(defaults=True), "tiny", fill=lambda new: write_code(new.code, {name: code} if code else {})
        )

    return make


def attempt(folder, number=1):
    from llf_core.stages.session import run_attempt

    return run_attempt(folder, number)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_mean_reward_of_a_grpo_run_rises(make_online):
    folder = make_online(max_steps=18, learning_rate=1e-2, save_steps=50, per_device_train_batch_size=16, num_generations=8)
    assert attempt(folder) == 0, RunReader(folder).status().reason
    columns = RunReader(folder).metrics()
    rewards = columns.values("reward")
    print(rewards)
    print(columns.names)
    print(lines(folder.samples)[-2:])
    print(folder.log.read_text() if folder.log.exists() else "")
