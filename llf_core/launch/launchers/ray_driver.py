"""`python -m llf_core.launch.launchers.ray_driver RUN ATTEMPT ADDRESS [-- COMMAND …]`: has Ray run an attempt.

A separate process, since Ray ends a driver that loses the head. It writes why the task failed on stdout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import llf_core
from llf_core.launch.launchers.ray_node import supervise
from llf_core.redaction.redact_text import is_secret_name
from llf_core.runs import RunFolder
from llf_core.runs.config_file import run_config


def main(arguments: list[str]) -> int:
    """Wait for the resources of the config's processes, then for the end of the run; 0 if the task ended by itself."""
    path, attempt, address, *rest = arguments
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    config = run_config(RunFolder(Path(path)))
    processes = config.launch.num_processes
    variables = {
        name: value
        for name, value in os.environ.items()
        if not is_secret_name(name) and not name.startswith(("RAY_", "CUDA_"))
    }
    try:
        ray.init(address=address, namespace="llf", log_to_driver=False, logging_level="error")
        gpus = 0 if config.training.use_cpu or not ray.cluster_resources().get("GPU") else processes
        task = ray.remote(supervise).options(
            name=f"llf-{Path(path).name}",
            num_cpus=processes * (config.launch.threads or 1),
            num_gpus=gpus,
            max_retries=0,
        )
        ray.get(task.remote(path, int(attempt), llf_core.__version__, rest[1:], variables))
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        cause = getattr(error, "cause", None) or error.__cause__ or error
        print((str(cause).strip() or type(cause).__name__).splitlines()[0], flush=True)  # noqa: T201 - its answer
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
