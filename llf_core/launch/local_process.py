"""Starts a detached supervisor, and the trainer on this machine: one process, or several of torchrun's agent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import llf_core
from llf_core.launch.environment import usable_cpus
from llf_core.runs import RunReader, read_status, status
from llf_core.runs.config_file import read_config
from llf_core.runs.disk_errors import failure_message, is_disk_error
from llf_core.runs.files import open_to_append
from llf_core.runs.formatting import plain_environment
from llf_core.runs.status import keep_reason, kept_reason
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

    from llf_core.runs import RunFolder

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")

# Read by the libraries when they are loaded; `benchmarks/environment.py` measures them.
RUNTIME_VARIABLES = {
    # Threads that wait for each other spin for some microseconds, then sleep. Sleeping at once makes a step a fifth
    # slower; spinning for long stops it where others use the cores.
    "GOMP_SPINCOUNT": "10000",
    # Freed memory is kept (glibc): tensors of a step come again in the next one, and fresh pages cost time.
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    # Products are compiled for their shapes. torch (ideep) keeps 1,024 of them unless told, about 0.27 MB each, and
    # oneDNN as many again, about 0.31 MB each, which torch does not ask for as long as it keeps them itself. A batch
    # of documents of all lengths up to 1,024 tokens has about 500. A layer would compile its products again if fewer
    # were kept than a batch has.
    "LRU_CACHE_CAPACITY": "512",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
}

# Reads one line and becomes the command; where the supervisor dies before it has written down who the trainer
# is, the line never comes and nothing starts.
GATE = 'read -r go && exec "$@" </dev/null'


def trainer_command(folder: RunFolder) -> list[str]:
    """Command of the trainer. `-P` prevents a `datasets.py` next to the notebook from shadowing the library."""
    python = [sys.executable, "-P", "-m"]
    config = read_config(folder.config)
    processes, nodes = config.get("num_processes"), config.get("num_nodes")
    if isinstance(nodes, int) and nodes > 1:
        place = (str(nodes), str(node_rank()), str(config.get("launch_target")))
        return [*python, "llf_core.launch.torchrun_process", str(folder.path), str(processes or 1), *place]
    if isinstance(processes, int) and processes > 1:
        return [*python, "llf_core.launch.torchrun_process", str(folder.path), str(processes)]
    return [*python, "llf_core.training.main", str(folder.path)]


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


def computing_environment(base: Mapping[str, str], threads: int | None = None) -> dict[str, str]:
    """Environment of processes that compute: `base` with thread counts and `RUNTIME_VARIABLES`, without forced colors.

    The variables of `base` take precedence. Default of `threads`: one per usable core.
    """
    counts = {name: str(threads or usable_cpus()) for name in THREAD_VARIABLES}
    return plain_environment(
        {**counts, **RUNTIME_VARIABLES, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **base}
    )


def threads_of(folder: RunFolder) -> int | None:
    """Number of threads recorded by a run's launcher; another number would change the last bits of sums."""
    threads = read_object_or_empty(folder.env).get("threads")
    return threads if isinstance(threads, int) and not isinstance(threads, bool) and threads > 0 else None


class Trainer:
    """A trainer process in its own process group that starts its program when `go` is called.

    Until then its process id can be stored, by which the run is killed and found lost.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own module, or what a test starts
            ["/bin/sh", "-c", GATE, "sh", *command],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            process_group=0,
        )

    @property
    def pid(self) -> int:
        """Id of the process and of its group."""
        return self._process.pid

    def go(self) -> None:
        """Let the process start its program."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        try:
            self._process.stdin.write(b"go\n")
            self._process.stdin.close()
        except BrokenPipeError:
            return  # killed at the gate: its exit code tells

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the trainer, or to its whole group, unless it has ended."""
        if self._process.returncode is None:
            (os.killpg if group else os.kill)(self.pid, number)

    def wait(self, seconds: float) -> int | None:
        """Exit code of the trainer, negative for a signal; None if it is still alive after `seconds`.

        Data loader workers that a killed trainer leaves behind are killed too.
        """
        if self._process.returncode is not None:  # its process id may be another process's by now
            return self._process.returncode
        if not self._has_ended(seconds):
            return None
        return self._process.wait()

    def _has_ended(self, seconds: float) -> bool:
        """Wait for the end without reaping. After a signal, the rest of the group is killed too."""
        if not hasattr(os, "pidfd_open"):  # macOS
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return False
            return True
        descriptor = os.pidfd_open(self.pid)
        try:
            readable, _, _ = select.select([descriptor], [], [], seconds)
        finally:
            os.close(descriptor)
        if not readable:
            return False
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        if ended is not None and ended.si_code != os.CLD_EXITED:
            # Not reaped yet, so the group's number is nobody else's. Data loaders would stay behind.
            os.killpg(self.pid, signal.SIGKILL)
        return True


REGISTRATION_SECONDS = 30.0
"""Maximum seconds to wait until the supervisor has registered itself; chosen by hand."""


def start_supervisor(
    folder: RunFolder,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    *,
    mode: Sequence[str] = (),
) -> None:
    """Start the supervisor of a run's current attempt, and return once it has registered itself in the run's status.

    Args:
        folder: the run, in the state `created`.
        env: additional environment variables, for example tokens; not stored.
        command: program with its arguments, to start instead of the trainer.
        mode: `--joins` where another machine's supervisor writes the status (`llf_core.launch.supervisor`),
            `--slurm` and the number of a job, or `--ray` and the address of a cluster, where it is supervised there
            (`llf_core.launch.launchers.cluster_watch`), `--held` where it ends with its stdin.

    Raises:
        RuntimeError: it did not start; the run is `failed`, and the message has the cause.
    """
    attempt = read_status(folder).attempt
    arguments = [str(folder.path), *mode, *(("--", *command) if command else ())]
    try:
        opened = open_to_append(folder.log)
    except OSError as error:
        of_disk = is_disk_error(error)
        reason = " ".join(failure_message(folder, error)) if of_disk else f"The run's supervisor did not start: {error}"
        raise RuntimeError(mark_failed(folder, attempt, reason)) from error
    try:
        with opened as log:
            first = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "llf_core.launch.supervisor_process", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment_with_this_llf({**os.environ, **(env or {})}),
                start_new_session=True,
            )
    except OSError as error:
        reason = f"The run's supervisor did not start: {error.strerror or error}."
        raise RuntimeError(mark_failed(folder, attempt, reason)) from error
    if _has_taken_over(first):
        return
    said = RunReader(folder).log_tail(1)
    reason = f"The run's supervisor did not start: {said or 'no error output'}"
    raise RuntimeError(mark_failed(folder, attempt, kept_reason(folder, attempt) or reason))


def mark_failed(folder: RunFolder, attempt: int, reason: str) -> str:
    """Mark an attempt that did not start as failed. Returns the reason, or the attempt's own if it has one."""
    try:
        return status.update(folder, of_attempt=attempt, state="failed", reason=reason).reason or reason
    except OSError:
        keep_reason(folder, attempt, reason)
        return reason


def _has_taken_over(first: subprocess.Popen[bytes]) -> bool:
    try:
        return first.wait(REGISTRATION_SECONDS) == 0
    except subprocess.TimeoutExpired:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        return False


def environment_with_this_llf(env: dict[str, str]) -> dict[str, str]:
    """Environment in which a new interpreter imports this same `llf_core`."""
    here = str(Path(llf_core.__file__).parent.parent)
    paths = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    if here in paths or Path(here).name in {"site-packages", "dist-packages"}:
        return env
    return {**env, "PYTHONPATH": os.pathsep.join([here, *paths])}
