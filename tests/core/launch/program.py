# ruff: noqa: T201 - its stdout is the run's log
"""A program to be supervised: it writes a run folder as a trainer does, in steps of some milliseconds.

`python program.py RUN MODE`; the mode says how it behaves. It is the supervisor that is tested with it. Most modes go
on for longer than any test, until they are asked to stop. `holds` makes the steps of `brief`, and waits at `HOLDS_AT`
until it is asked to stop or a file `go` is in the run's folder.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from llf_core.runs import Checkpoints, Inbox, RunFolder, RunWriter, read_status

STEPS = 6000
HOLDS_AT = 20
SAVE_EVERY = 5


def main(path, mode):
    folder = RunFolder(Path(path))
    if mode == "silent":
        time.sleep(3600)
    if mode.startswith("exit-"):
        sys.exit(int(mode[5:]))
    if mode == "raises":
        print("about to fail", flush=True)
        raise ValueError("the learning rate is a banana")
    if mode == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if mode == "environment":
        print({name: os.environ.get(name) for name in sys.argv[3:]}, flush=True)
        sys.exit(0)
    train(folder, mode)


def train(folder, mode):
    attempt = read_status(folder).attempt
    writer = RunWriter(folder, attempt)
    writer.start_heartbeat(0.2)
    if mode == "error":
        writer.event("error", message="Row 3 has no answer.", what_to_do="Add one.")
        sys.exit(2)
    if mode == "children":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        print("child", child.pid, flush=True)
    stop = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "deaf" else lambda *_: stop.append("SIGTERM"))
    checkpoints, inbox = Checkpoints(folder), Inbox(folder)
    latest = checkpoints.latest() if attempt > 1 else None
    first = 1 + (int(latest.name.rpartition("-")[2]) if latest else 0)
    steps = {"short": 20, "ill": 20, "brief": 60, "holds": 60}.get(mode, STEPS)
    writer.status(state="running", step=first - 1, total=steps)
    writer.event("state", state="running")
    for step in range(first, steps + 1):
        time.sleep(0.01)
        writer.metric(step, {"loss": 1 / step if mode != "ill" or step < 5 else 9.0})
        writer.status(step=step)
        asked = inbox.scan() if mode not in {"deaf", "busy"} else []
        while mode == "holds" and step == HOLDS_AT and not asked and not stop and not (folder.path / "go").exists():
            time.sleep(0.01)
            asked = inbox.scan()
        for request in asked:
            writer.event("request", id=request.id, request=request.type, args=request.args, by=request.by)
            stop.append(request)
        if stop or step % SAVE_EVERY == 0:
            save(checkpoints, writer, step)
        if stop:
            writer.status(state="stopping")
            for request in asked:
                writer.event("answer", id=request.id, request=request.type, ok=True, message="Saved.")
                inbox.done(request)
            writer.close("stopped", f"Stopped at step {step}.")
            return
    writer.close("finished")


def save(checkpoints, writer, step):
    """A checkpoint whose one file tells its step; then the old ones go."""
    path = checkpoints.path(step)
    path.mkdir(parents=True, exist_ok=True)
    (path / "model").write_text(str(step) * 100)
    writer.event("checkpoint", step=step, path=f"checkpoints/{path.name}", bytes=checkpoints.finish(step))
    for removed in checkpoints.prune(keep=2):
        writer.event("checkpoint_removed", step=removed)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
