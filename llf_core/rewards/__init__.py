"""Reward functions: built in, or written in a notebook cell.

A function from a cell is stored in the run as source code with its dependencies in the notebook; nothing is pickled.
Imports no torch: the notebook registers functions, the launcher writes their source, and only the trainer calls them.
"""

from llf_core.rewards.built_in import BUILT_IN
from llf_core.rewards.call_reward import Completion, Reward, RewardError, as_float
from llf_core.rewards.decorator import reward
from llf_core.rewards.from_file import from_file
from llf_core.rewards.load import load_rewards
from llf_core.rewards.stored_functions import (
    definition_cell,
    functions_by_name,
    replace_code,
    reward_names,
    reward_sources,
    write_code,
)
from llf_core.rewards.weighted_sum import ScoredCompletion, WeightedSum, fix_message, unscored_message

__all__ = [
    "BUILT_IN",
    "Completion",
    "Reward",
    "RewardError",
    "ScoredCompletion",
    "WeightedSum",
    "as_float",
    "definition_cell",
    "fix_message",
    "from_file",
    "functions_by_name",
    "load_rewards",
    "replace_code",
    "reward",
    "reward_names",
    "reward_sources",
    "unscored_message",
    "write_code",
]
