"""The fixtures of attempts, see `tests/attempts.py`, of forked trainers, and preference pairs."""

import pytest

from tests.attempts import data_file, make_run, settings, trained
from tests.core.training.adapted import in_float32, logits_at_the_end
from tests.core.training.forked_trainer import ForkedTrainer
from tests.preference_pairs import pair_rows, pairs

__all__ = ["data_file", "in_float32", "logits_at_the_end", "make_run", "pair_rows", "pairs", "settings", "trained"]


@pytest.fixture(scope="module")
def trainer(fork_server):
    """Forks real trainers for the tests of a module."""
    one = ForkedTrainer(fork_server.python)
    yield one
    one.close()
