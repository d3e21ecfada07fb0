"""`python -m llf_core.launch.supervisor_process RUN [MODE] [-- COMMAND …]`: supervises a run's trainer.

It detaches itself by a second fork before it imports anything, so that no kernel, terminal or server is its parent.
`COMMAND` replaces the trainer. `MODE` is that of `llf_core.launch.local_process`.
"""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> None:
    """Detach, then supervise the run whose folder is the first argument.

    The first process exits once the supervisor has registered itself, with 0, or with 1 if that failed.
    """
    read_end, write_end = os.pipe()
    if os.fork() != 0:
        os.close(write_end)
        # The launcher waits for this process: 0 once the supervisor has taken over, 1 where it died before.
        os._exit(0 if os.read(read_end, 1) else 1)
    os.close(read_end)
    from pathlib import Path

    from llf_core.launch.supervisor import Supervisor
    from llf_core.runs import RunFolder
    from llf_core.runs.process_log import log_to_run, tolerate_a_full_log

    tolerate_a_full_log()
    log_to_run()
    path, *rest = arguments
    folder = RunFolder(Path(path))
    if rest[:1] == ["--joins"]:
        from llf_core.launch.supervisor import supervise_node

        supervise_node(folder, lambda: os.write(write_end, b"."))
    elif rest[:1] == ["--slurm"]:
        from llf_core.launch.launchers.cluster_watch import watch_job

        watch_job(folder, rest[1], lambda: os.write(write_end, b"."))
    elif rest[:1] == ["--ray"]:
        from llf_core.launch.launchers.cluster_watch import watch_task

        watch_task(folder, rest[1], rest[3:], lambda: os.write(write_end, b"."))
    else:
        if rest[:1] == ["--held"]:
            _stop_with_stdin()
            rest = rest[1:]
        Supervisor(folder, rest[1:] or None).run(taken_over=lambda: os.write(write_end, b"."))


def _stop_with_stdin() -> None:
    """Stop the run like SIGTERM when stdin is closed."""
    import signal
    import threading

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
