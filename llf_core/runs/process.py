"""Process identity: a pid is valid only with its start time, host and boot id."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import psutil

from llf_core.runs.jsonl import as_number

TOLERANCE = 1.0  # tolerance in seconds between two readings of a start time


@dataclass(frozen=True)
class ProcessId:
    """Identity of a process that survives reuse of its pid.

    Attributes:
        started: start time in Unix seconds, as reported by psutil. Shifts when the system clock is set.
        ticks: on Linux, clock ticks from boot to start, which never shift; None elsewhere.
    """

    pid: int
    started: float
    ticks: int | None = None

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that currently has this pid."""
        return cls(pid, psutil.Process(pid).create_time(), _start_ticks(pid))

    @classmethod
    def own(cls) -> ProcessId:
        """The current process."""
        return cls.of(os.getpid())

    @classmethod
    def read(cls, value: object) -> ProcessId | None:
        """Parse `pid`, `started` and `ticks` of a status; None if they are invalid."""
        if not isinstance(value, dict):
            return None
        pid, started, ticks = (value.get(key) for key in ("pid", "started", "ticks"))
        start = None if isinstance(started, str) else as_number(started)
        if not isinstance(pid, int) or pid <= 0 or start is None:
            return None
        return cls(pid, start, ticks if isinstance(ticks, int) else None)

    def json(self) -> dict[str, object]:
        """The identity as stored in `status.json`; `read` parses it."""
        return asdict(self)

    def alive(self) -> bool:
        """Whether this process still runs on this machine; a zombie does not count.

        A process of another user that the system hides counts, so that nobody takes over its run.
        """
        try:
            process = psutil.Process(self.pid)
            if self.ticks is not None:
                same = self.ticks == _start_ticks(self.pid)
            else:
                same = abs(process.create_time() - self.started) <= TOLERANCE
            return same and process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
        except psutil.NoSuchProcess:
            return False
        except (psutil.AccessDenied, PermissionError):
            return True


def _start_ticks(pid: int) -> int | None:
    try:
        facts = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(facts[facts.rfind(b")") + 2 :].split()[19])


@cache
def host() -> str:
    """Name of this machine, or of the container; process ids are valid only there."""
    return socket.gethostname()


@cache
def boot_id() -> str:
    """Identifier that changes with every boot of this machine; process ids are valid only within one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        pass
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 - fixed
        if told:
            return told
    return f"{psutil.boot_time():.0f}"
