"""Slurm: `sbatch` queues a job that starts the supervisor in its allocation, in the shared folder of runs.

`slurm_job` is the job, `cluster_watch` stays on this machine. Further options are Slurm's own variables, such as
`SBATCH_ACCOUNT`, `SBATCH_TIMELIMIT` and `SBATCH_MEM_PER_NODE`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from llf_core.launch.launchers.launcher import Launcher
from llf_core.launch.local_process import environment_with_this_llf, mark_failed, start_supervisor
from llf_core.launch.queue import enqueue
from llf_core.redaction.redact_text import URLS_VARIABLE, is_secret_name
from llf_core.runs import read_status, status, update_env
from llf_core.runs.config_file import run_config
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.config import RunConfig
    from llf_core.config.values import ConfigValues
    from llf_core.runs import RunFolder

ANSWER_SECONDS = 30.0
HOST = "slurm"
"""Host of a run that Slurm has queued: not this machine, so that its queue does not wait for it."""
_PARTITION = re.compile(r"[\w,.+-]+", re.ASCII)


def ask(*command: str, text: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Output of a command of Slurm; no shell reads its words.

    Raises:
        RuntimeError: it failed; the message quotes Slurm.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the user's own Slurm
            command, input=text or "", capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False, env=env
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"Slurm's {command[0]} cannot be asked: {error}.") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(f"Slurm's {command[0]} failed: {said[-1].rstrip('.')}.")
    return done.stdout.strip()


def job_script(folder: str, log: str, attempt: int, command: Sequence[str] | None) -> str:
    """Shell script of a job, with every word quoted."""
    job = [sys.executable, "-P", "-m", "llf_core.launch.launchers.slurm_job", folder, str(attempt)]
    words = [*job, *(("--", *command) if command else ())]
    return f"#!/bin/sh\nexec {shlex.join(words)} </dev/null >>{shlex.quote(log)} 2>&1\n"


def job_options(config: RunConfig, name: str, gpus: bool) -> list[str]:
    """Options of `sbatch` for a config: its partition, and as many cores and GPUs as its processes use."""
    target, processes = config.launch.launch_target, config.launch.num_processes
    cores = None if config.launch.threads is None else config.launch.threads * processes
    return [
        f"--job-name=llf-{name}",
        "--nodes=1",
        "--ntasks=1",
        "--output=/dev/null",
        "--open-mode=append",
        *([] if target is None else [f"--partition={target}"]),
        *([] if cores is None else [f"--cpus-per-task={cores}"]),
        *([f"--gpus={processes}"] if gpus and not config.training.use_cpu else []),
    ]


def _partitions(target: str | None) -> str:
    """Partitions and their generic resources, one per line; all partitions without a target."""
    return ask("sinfo", "--noheader", *([] if target is None else [f"--partition={target}"]), "--format=%R %G")


def _unavailable(config: ConfigValues) -> str | None:
    if shutil.which("sbatch") is None:
        return "Slurm's sbatch is not on this machine. Log in to a machine of the cluster and start the run there."
    if config.launch.launch != SLURM.name:
        return None
    target = config.launch.launch_target
    if target is not None and not _PARTITION.fullmatch(target):
        return f"`launch_target` is {target!r}. Expected the name of a partition, or none for the default one."
    try:
        found = _partitions(target)
        if not found:
            known = ", ".join(sorted({line.split()[0] for line in _partitions(None).splitlines()}))
            return f"Slurm has no partition {target}. Expected one of {known}."
    except RuntimeError as error:
        return str(error)
    return None


def _start(folder: RunFolder, env: Mapping[str, str], command: Sequence[str] | None) -> None:
    attempt, config = read_status(folder).attempt, run_config(folder)
    # What Slurm keeps of a job's environment is a file, so it gets no secrets.
    variables = environment_with_this_llf({**os.environ, **env})
    if variables.get(URLS_VARIABLE):
        reason = "Slurm would store the keys in the URLs of this config. Download the data first, and name the files."
        raise RuntimeError(mark_failed(folder, attempt, reason))
    open_ones = {name: value for name, value in variables.items() if not is_secret_name(name)}
    try:
        before = read_object_or_empty(folder.env).get(HOST)
        if isinstance(before, dict) and str(before.get("job", "")).isdecimal():
            cancel(str(before["job"]))  # a job that was given up as lost would start the run a second time
        enqueue(folder)
        status.update(folder, of_attempt=attempt, host=HOST, boot_id=None)
        gpus = "gpu" in _partitions(config.launch.launch_target)
        options = job_options(config, folder.id, gpus)
        script = job_script(str(folder.path), str(folder.log), attempt, command)
        job = ask("sbatch", "--parsable", f"--chdir={folder.path}", *options, text=script, env=open_ones)
    except RuntimeError as error:
        folder.queue.unlink(missing_ok=True)
        raise RuntimeError(mark_failed(folder, attempt, str(error))) from error
    job = job.partition(";")[0]
    update_env(folder, slurm={"job": job})
    start_supervisor(folder, env, mode=("--slurm", job))


def cancel(job: str) -> None:
    """Cancel a job with all of its processes; nothing happens if it has ended."""
    ask("scancel", "--quiet", job)


SLURM = Launcher(
    name="slurm",
    label="Slurm",
    summary="A job of a cluster that shares the folder of runs; the target is a partition.",
    unavailable=_unavailable,
    target="default partition",
    start=_start,
)
