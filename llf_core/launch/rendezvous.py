"""Rendezvous of the machines of a run, and this machine's rank."""

from __future__ import annotations

import os


def node_rank() -> int:
    """Rank of this machine, from 0: the variable `NODE_RANK`, as in LLaMA-Factory."""
    found = os.environ.get("NODE_RANK", "")
    return int(found) if found.isdecimal() else 0


def rendezvous_of(target: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`.

    Raises:
        ValueError: it is something else.
    """
    host, _, port = target.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:  # noqa: PLR2004 - ports
        raise ValueError(target)
    return host, int(port)
