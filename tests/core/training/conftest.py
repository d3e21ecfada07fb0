"""The fixtures of attempts, see `tests/attempts.py`, and preference pairs."""

from tests.attempts import data_file, make_run, settings, trained
from tests.core.training.adapted import in_float32, logits_at_the_end
from tests.preference_pairs import pair_rows, pairs

__all__ = ["data_file", "in_float32", "logits_at_the_end", "make_run", "pair_rows", "pairs", "settings", "trained"]
