"""The files of a run that a mirror has."""

APPENDED = ("metrics.jsonl", "events.jsonl", "samples.jsonl", "examples.jsonl", "log.txt")
"""Append-only files; only new bytes are copied."""
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
"""Files that are replaced and copied as a whole. `status.json` is written from the host's status messages."""
MOST_BYTES = 64 << 20
"""Maximum size of a replaced file; larger ones are skipped."""
CHUNK = 1 << 20
BEAT_SECONDS = 2.0
"""Interval at which each side sends at least one message."""
SILENCE_SECONDS = 15.0
"""Silence after which the connection counts as broken; chosen by hand, as is the interval above."""
