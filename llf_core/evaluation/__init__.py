"""Evaluation of finished runs: losses, answers, win rates and reward accuracy."""
