"""The files of a run that a mirror has."""

APPENDED = ("metrics.jsonl", "events.jsonl", "samples.jsonl", "examples.jsonl", "log.txt")
"""Only ever appended to; what is new is copied."""
REPLACED = (
    "config.yaml",
    "env.json",
    "meta.json",
    "output.json",
    "queue.json",
    "replay.json",
    "resolved.yaml",
    "trained.json",
)
"""Replaced as a whole, and copied as a whole. `status.json` is written from what the host says."""
MOST_BYTES = 64 << 20
"""Maximum size of a replaced file; larger ones are left out."""
CHUNK = 1 << 20
BEAT_SECONDS = 2.0
"""Both sides send something at least this often."""
SILENCE_SECONDS = 15.0
"""Without news for this long the link counts as broken; chosen by hand, as is the duration above."""
