"""Keeps torchao from filling a run's log when it is imported: lines about kernels for GPUs, and for its authors."""

from __future__ import annotations

import logging

NOISE = {"torchao": "Failed to load", "torch.utils._pytree": "%s is an Enum subclass"}
"""How messages begin that torchao 0.18 causes at its import, by the name of their logger."""


def silence_torchao() -> None:
    """Drop the messages of `NOISE`, which a user can do nothing about; all others are logged.

    Call it before torchao is imported, which transformers does by itself.
    """
    for name, start in NOISE.items():
        logging.getLogger(name).addFilter(_Dropped(start))


class _Dropped(logging.Filter):
    """Filter that drops messages with a certain beginning."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self._start = start

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(self._start)
