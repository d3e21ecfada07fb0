from __future__ import annotations

import logging

NOISE = {"torchao": "Failed to load", "torch.utils._pytree": "%s is an Enum subclass"}
"""Start of messages at the import of torchao 0.18, by logger."""


def silence_torchao() -> None:
    """Drop the messages of `NOISE`, which a user can do nothing about. Call it before torchao is imported."""
    for name, start in NOISE.items():
        logging.getLogger(name).addFilter(_Dropped(start))


class _Dropped(logging.Filter):
    def __init__(self, start: str) -> None:
        super().__init__()
        self._start = start

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(self._start)
