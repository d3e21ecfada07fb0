"""A process that has loaded libraries, and forks an interpreter for each that `python` asks for.

`python server.py SOCKET KIND` prints `ready`, then forks for each connection; `client.py` says what is sent. `trainers`
have loaded torch and what stands on it; `kernels` have loaded IPython's kernel and the notebook views.
"""

import array
import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback

MOST = 1 << 22


def load_trainers():
    """Loads torch and what trains."""
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch
    from transformers import LlamaForCausalLM, LlamaTokenizerFast  # noqa: F401

    from llf_core.data import inspect  # noqa: F401
    from llf_core.training import session  # noqa: F401

    torch.set_num_threads(1)


def load_kernels():
    """Loads IPython's kernel and the notebook views, which leave torch to other processes."""
    import matplotlib.backends.backend_agg  # noqa: F401
    from ipykernel import ipkernel, kernelapp  # noqa: F401

    import llf_widgets

    for name in llf_widgets.__all__:
        getattr(llf_widgets, name)
    assert "torch" not in sys.modules


LOAD = {"trainers": load_trainers, "kernels": load_kernels}


def receive(connection):
    """What is asked for, the standard streams, and the numbers of signals that came close behind it.

    None of a client that was killed before it had asked.
    """
    data, ancillary, _, _ = connection.recvmsg(MOST, socket.CMSG_SPACE(3 * 4))
    descriptors = array.array("i")
    for _, _, some in ancillary:
        descriptors.frombytes(some)
    while b"\n" not in data:
        more = connection.recv(MOST)
        if not more:
            return None
        data += more
    line, _, numbers = data.partition(b"\n")
    return json.loads(line), list(descriptors), list(numbers)


def run(asked, descriptors):
    """Becomes the interpreter that was asked for; its exit code."""
    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.environ.pop("LLF_AGENT", None)  # whose child is the `python` that stands for this process
    os.umask(asked["umask"])
    os.chdir(asked["cwd"])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.executable = asked["executable"]
    arguments = asked["arguments"]
    safe = arguments[0] == "-P"
    kind, rest = (arguments[safe], arguments[safe + 1 :])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*paths, *(path for path in sys.path[1:] if path not in paths)]
    code = 0
    try:
        if kind == "-m":
            sys.path[:0] = [] if safe else [os.getcwd()]
            sys.argv[:] = ["-m", *rest[1:]]
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.path[:0] = [] if safe else [""]
            sys.argv[:] = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.path[:0] = [] if safe else [os.path.dirname(kind)]
            sys.argv[:] = [kind, *rest]
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 0 if ending.code is None else 1
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def keep(connection):
    """Forks the interpreter, hands it the signals that its `python` gets, ends it with that one, and tells its exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    received = receive(connection)
    if received is None:
        return
    asked, descriptors, numbers = received
    child = os.fork()
    if child == 0:
        connection.close()
        os._exit(run(asked, descriptors) & 0xFF)
    for descriptor in descriptors:
        os.close(descriptor)
    ended = os.pidfd_open(child)
    for number in numbers:
        os.kill(child, number)
    while True:
        readable, _, _ = select.select([ended, connection], [], [])
        if ended in readable:
            break
        sent = connection.recv(1)
        if not sent:  # killed
            os.kill(child, signal.SIGKILL)
            break
        os.kill(child, sent[0])
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    LOAD[sys.argv[2]]()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen(64)
        print("ready", flush=True)
        while True:
            readable, _, _ = select.select([listening, 0], [], [])
            if 0 in readable:  # closed by whoever started it
                break
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                keep(connection)
                os._exit(0)
            connection.close()
