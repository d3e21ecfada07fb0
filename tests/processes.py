"""Finds what a test has started, whoever its parent is by now."""

import contextlib
import os
import signal
import sys
import time
import traceback
from itertools import count
from pathlib import Path

import psutil

STEPS = {"ctypes.dlopen", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
"""Audit events of Python that change what is on the disk, or come just before a call of C that does."""


def processes_of(home):
    """All processes of this machine that were started with this `LLF_HOME`, this one excepted."""
    mark = f"LLF_HOME={home}\0".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes() and int(environ.parent.name) != os.getpid():
                found.append(psutil.Process(int(environ.parent.name)))
        except (OSError, psutil.NoSuchProcess):
            continue  # ended meanwhile, or somebody else's
    return found


def running(processes, module):
    """Those of them that run a module; one that ends meanwhile is none of them."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie too
            if module in process.cmdline():
                found.append(process)
    return found


def open_descriptors(pid="self"):
    """`(number, path)` of all that a process has open, but for what it closes meanwhile.

    What is open after something and was not before is what that left: other threads may close theirs at any time.
    """
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder itself too
            found.add((entry.name, str(entry.readlink())))
    return found


def wait_for_supervisor(run, seconds=120):
    """Waits until a run has ended and its supervisor, which writes more after the final state, has exited.

    Returns:
        The status by then.
    """
    guard = run.wait(seconds, progress=False).supervisor_process
    until = time.monotonic() + seconds
    while guard is not None and guard.alive():
        assert time.monotonic() < until, "the supervisor stays"
        time.sleep(0.01)
    return run.status()


def with_input_of(pid):
    """The pids of a process and of all with its standard input.

    What `tests.forking` has forked reads the pipe of the process that stands for it, which is all that its parent
    knows; signals that stop the one do not stop the other.
    """
    pipe, found = Path(f"/proc/{pid}/fd/0").readlink(), []
    assert pipe.name.startswith("pipe:"), pipe
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if (process / "fd" / "0").readlink() == pipe:
                found.append(int(process.name))
    return found


def signal_all(pids, number):
    """Sends a signal to processes that live."""
    for pid in pids:
        os.kill(pid, number)


def go_on_until(seen, pids, pause=lambda: time.sleep(0.2), seconds=240):
    """Lets stopped processes go on for moments until something is seen, so that what looks slowly misses nothing."""
    until = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < until
        signal_all(pids, signal.SIGCONT)
        time.sleep(0.02)
        signal_all(pids, signal.SIGSTOP)
        pause()


def end(processes, seconds=60):
    """Kills them and waits until they have ended, at most so many seconds."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    until = time.monotonic() + seconds
    while not all(has_ended(process) for process in processes) and time.monotonic() < until:
        time.sleep(0.005)


def has_ended(process):
    """Whether a process has ended with all of its threads; a child of this one is reaped then.

    An orphan is reaped by init, which can take it a second.
    """
    try:
        if not process.is_running():
            return True
        if process.status() != psutil.STATUS_ZOMBIE or len(list(Path(f"/proc/{process.pid}/task").iterdir())) > 1:
            return False
        if process.ppid() == os.getpid():
            process.wait()
    except (psutil.NoSuchProcess, FileNotFoundError):
        return True
    return True


def killed_at_each_step(action):
    """Forks a process for each of `STEPS` in an action, which is killed before that step; the last one finishes.

    Yields:
        After each process: whether it finished.
    """
    for step in count():
        child = os.fork()
        if child == 0:
            try:
                steps = count()

                def hook(event, _, step=step, steps=steps):
                    if event in STEPS and next(steps) == step:
                        os.kill(os.getpid(), signal.SIGKILL)

                sys.addaudithook(hook)
                action()
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in {0, -signal.SIGKILL}
        yield code == 0
        if code == 0:
            return
