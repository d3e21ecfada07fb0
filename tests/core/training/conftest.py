"""The fixtures of attempts, see `tests/attempts.py`, and preference pairs."""

from tests.attempts import data_file, make_run, settings, trained
from tests.preference_pairs import pair_rows, pairs

__all__ = ["data_file", "make_run", "pair_rows", "pairs", "settings", "trained"]
