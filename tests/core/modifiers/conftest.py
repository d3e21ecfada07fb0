"""The fixtures of attempts, see `tests/attempts.py`."""

from tests.attempts import data_file, make_run, settings, trained

__all__ = ["data_file", "make_run", "settings", "trained"]
