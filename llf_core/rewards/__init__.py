"""Reward functions: built in, or written in a notebook cell. Imports no torch.

A function from a cell is stored in the run as source code with its dependencies in the notebook; nothing is pickled.
Only the trainer calls it.
"""

from llf_core.rewards.built_in import BUILT_IN
from llf_core.rewards.call_reward import (
    Completion,
    Reward,
    RewardError,
    ScoredCompletion,
    WeightedSum,
    fix_message,
    unscored_message,
)
from llf_core.rewards.decorator import REWARDS, reward
from llf_core.rewards.load import load_rewards, replace_code, reward_names, reward_sources

__all__ = [
    "BUILT_IN",
    "REWARDS",
    "Completion",
    "Reward",
    "RewardError",
    "ScoredCompletion",
    "WeightedSum",
    "fix_message",
    "load_rewards",
    "replace_code",
    "reward",
    "reward_names",
    "reward_sources",
    "unscored_message",
]
