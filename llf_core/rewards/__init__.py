"""Reward functions: those that ship with LLF, and those that are written in a cell.

A function of a cell goes into a run as its source, with what it needs of the notebook; nothing is pickled. Imports no
torch: the notebook side records functions, the launcher writes their source, and only the trainer calls them.
"""

from llf_core.rewards.built_in import BUILT_IN
from llf_core.rewards.call_reward import Answered, Reward, RewardError, as_float
from llf_core.rewards.decorator import reward
from llf_core.rewards.from_file import from_file
from llf_core.rewards.load import load_rewards
from llf_core.rewards.stored_functions import by_name, cell_of, code_of, functions_of, replace_code, write_code
from llf_core.rewards.weighted_sum import Judged, Weighed, not_applied, to_mend

__all__ = [
    "BUILT_IN",
    "Answered",
    "Judged",
    "Reward",
    "RewardError",
    "Weighed",
    "as_float",
    "by_name",
    "cell_of",
    "code_of",
    "from_file",
    "functions_of",
    "load_rewards",
    "not_applied",
    "replace_code",
    "reward",
    "to_mend",
    "write_code",
]
